;; Tries a table of 2^32-1 entries.
(module
  (memory (export "memory") 2 4)
  (data (i32.const 1024) "\a1\67verdict\65allow")
  (func (export "holdfast_abi_v1") (result i32) (i32.const 0))
  (func (export "holdfast_alloc") (param $len i32) (result i32)
    (i32.const 4096))
  (func (export "holdfast_decide") (param $ptr i32) (param $len i32) (result i64)
    (i64.const 0x400_0000000f))
  (table 4294967295 funcref))
