package wasm

import "github.com/holdfast-policy/holdfast/sdk/abi"

// contractExport is an export that a contract wants.
type contractExport struct {
	kind     byte
	typ      FuncType
	optional bool
}

var exportsOf = map[abi.Kind]map[string]contractExport{
	abi.HoldfastV1: {
		abi.ExportMemory:     {kind: kindMemory},
		abi.ExportVersion:    {typ: ":i"},
		abi.ExportAlloc:      {typ: "i:i"},
		abi.ExportDecide:     {typ: "ii:I"},
		abi.ExportInit:       {typ: "ii:i", optional: true},
		abi.ExportInitialize: {typ: ":", optional: true},
	},
	abi.OPA1: {
		"opa_wasm_abi_version":        {kind: kindGlobal},
		"opa_wasm_abi_minor_version":  {kind: kindGlobal},
		"eval":                        {typ: "i:i"},
		"opa_eval_ctx_new":            {typ: ":i"},
		"opa_eval_ctx_set_input":      {typ: "ii:"},
		"opa_eval_ctx_set_data":       {typ: "ii:"},
		"opa_eval_ctx_set_entrypoint": {typ: "ii:"},
		"opa_eval_ctx_get_result":     {typ: "i:i"},
		"opa_malloc":                  {typ: "i:i"},
		"opa_heap_ptr_get":            {typ: ":i"},
		"opa_heap_ptr_set":            {typ: "i:"},
		"opa_json_parse":              {typ: "ii:i"},
		"opa_value_parse":             {typ: "ii:i"},
		"opa_json_dump":               {typ: "i:i"},
		"opa_value_dump":              {typ: "i:i"},
		"builtins":                    {typ: ":i"},
		"entrypoints":                 {typ: ":i"},
		abi.ExportMemory:              {kind: kindMemory, optional: true},
		abi.ExportInitialize:          {typ: ":", optional: true},
	},
}

// memoryImport marks the import of a memory in AllowedImports.
const memoryImport FuncType = "memory"

// AllowedImports returns, by "module.name", the type of every function that the
// host offers to modules of that contract; OPA's memory is listed as "memory".
func AllowedImports(kind abi.Kind) map[string]FuncType {
	if kind == abi.OPA1 {
		return map[string]FuncType{
			"env.memory": memoryImport, "env.opa_abort": "i:", "env.opa_println": "i:",
			"env.opa_builtin0": "ii:i", "env.opa_builtin1": "iii:i", "env.opa_builtin2": "iiii:i",
			"env.opa_builtin3": "iiiii:i", "env.opa_builtin4": "iiiiii:i",
		}
	}
	allowed := map[string]FuncType{
		abi.ImportModule + "." + abi.ImportLog:   "iii:",
		abi.ImportModule + "." + abi.ImportNow:   ":I",
		abi.ImportModule + "." + abi.ImportMatch: "iii:i",
	}
	for name, typ := range wasi {
		allowed[abi.WASIModule+"."+name] = typ
	}
	return allowed
}

// wasi lists the functions of WASI preview 1 that the host answers without
// giving access to anything.
var wasi = map[string]FuncType{
	"args_get": "ii:i", "args_sizes_get": "ii:i", "environ_get": "ii:i", "environ_sizes_get": "ii:i",
	"clock_res_get": "ii:i", "clock_time_get": "iIi:i", "random_get": "ii:i", "sched_yield": ":i",
	"poll_oneoff": "iiii:i", "proc_exit": "i:",
	"fd_write": "iiii:i", "fd_read": "iiii:i", "fd_close": "i:i", "fd_seek": "iIii:i",
	"fd_fdstat_get": "ii:i", "fd_fdstat_set_flags": "ii:i", "fd_filestat_get": "ii:i", "fd_filestat_set_size": "iI:i",
	"fd_prestat_get": "ii:i", "fd_prestat_dir_name": "iii:i", "fd_pread": "iiiIi:i", "fd_pwrite": "iiiIi:i",
	"fd_readdir": "iiiIi:i", "fd_sync": "i:i", "fd_tell": "ii:i",
	"path_create_directory": "iii:i", "path_filestat_get": "iiiii:i", "path_filestat_set_times": "iiiiIIi:i",
	"path_link": "iiiiiii:i", "path_open": "iiiiiIIii:i", "path_readlink": "iiiiii:i",
	"path_remove_directory": "iii:i", "path_rename": "iiiiii:i", "path_symlink": "iiiii:i", "path_unlink_file": "iii:i",
}
