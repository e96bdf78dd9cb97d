package toolchain

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// minASCMinor is the first version of asc, of major version 0, that the SDK is written for.
const minASCMinor = 28

const installASC = "run `npm install --save-dev assemblyscript@0.28` in the policy's folder or above it; asc is looked for there, on PATH, or where ASC says"

var nodeInstall = install{
	apt: "apt-get install nodejs npm", dnf: "dnf install nodejs", brew: "brew install node", winget: "winget install OpenJS.NodeJS.LTS",
	other: "install Node.js 20 or newer (nodejs.org) and put node on PATH",
}

// AssemblyScript compiles policy.ts in dir. The compiler is $ASC, else
// node_modules/.bin/asc of the folder or of one above it, else asc on the PATH.
// The folder's asconfig.json is not read: it may name programs for asc to run.
// Errors are *MissingError, *CompileError or those of the file system.
func AssemblyScript(ctx context.Context, dir string) (*Module, error) {
	asc, version, err := findASC(ctx, dir)
	if err != nil {
		return nil, err
	}
	return scratch(func(tmp string) (*Module, error) {
		out, config := filepath.Join(tmp, "policy.wasm"), filepath.Join(tmp, "asconfig.json")
		if err := os.WriteFile(config, []byte("{}"), 0o600); err != nil {
			return nil, err
		}
		if err := asc.compile(ctx, "policy.ts", "--outFile", out, "--config", config, "--runtime", "stub", "-O3", "--noAssert", "--use", "abort=", "--noColors"); err != nil {
			return nil, err
		}
		wasm, err := readModule(out, asc.name)
		return &Module{Wasm: wasm, Toolchain: "asc " + version}, err
	})
}

// findASC returns the compiler and its version.
func findASC(ctx context.Context, dir string) (asc tool, version string, err error) {
	if _, err := exec.LookPath("node"); err != nil {
		return tool{}, "", &MissingError{Program: "node", Install: nodeInstall.hint()}
	}
	path, err := exec.LookPath(cmp.Or(absolute(os.Getenv("ASC")), local(dir, "asc"), "asc"))
	if err != nil {
		return tool{}, "", &MissingError{Program: "asc", Install: installASC}
	}
	asc = tool{path: absolute(path), name: "asc policy.ts", dir: dir, unset: []string{"NODE_OPTIONS"}}
	said, err := asc.run(ctx, "--version")
	if ctx.Err() != nil {
		return tool{}, "", ctx.Err()
	}
	if err != nil {
		return tool{}, "", &MissingError{Program: "an asc that runs (" + path + ": " + err.Error() + ")", Install: installASC}
	}
	version = strings.TrimPrefix(strings.TrimSpace(said), "Version ")
	if !ascNewEnough(version) {
		return tool{}, "", &MissingError{Program: "asc", Found: version, Install: installASC}
	}
	return asc, version, nil
}

// ascNewEnough accepts 0.N with N at least minASCMinor, and any later major version.
func ascNewEnough(version string) bool {
	var major, minor int
	if _, err := fmt.Sscanf(version, "%d.%d", &major, &minor); err != nil {
		return false
	}
	return major > 0 || minor >= minASCMinor
}
