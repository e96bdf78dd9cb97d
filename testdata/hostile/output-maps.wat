;; Tries to answer 64 KiB of empty arrays, which are small there and large here.
(module
  (memory (export "memory") 2 4)
  (func (export "holdfast_abi_v1") (result i32) (i32.const 0))
  (func (export "holdfast_alloc") (param $len i32) (result i32)
    (i32.const 4096))
  (func (export "holdfast_decide") (param $ptr i32) (param $len i32) (result i64)
    (memory.fill (i32.const 1033) (i32.const 0x80) (i32.const 65000))
    (memory.copy (i32.const 66033) (i32.const 512) (i32.const 14))
    (i64.const 0x400_0000fdff))
  (data (i32.const 1024) "\a2\65value\99\fd\e8")
  (data (i32.const 512) "\67verdict\65allow"))
