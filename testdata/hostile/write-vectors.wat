;; Tries to write 4,294,967,295 vectors to standard output.
(module
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 2 4)
  (data (i32.const 1024) "\a1\67verdict\65allow")
  (func (export "holdfast_abi_v1") (result i32) (i32.const 0))
  (func (export "holdfast_alloc") (param $len i32) (result i32)
    (i32.const 4096))
  (func (export "holdfast_decide") (param $ptr i32) (param $len i32) (result i64)
    (if (i32.eqz (call $write (i32.const 1) (i32.const 0) (i32.const -1) (i32.const 2048))) (then (unreachable)))
    (i64.const 0x400_0000000f)))
