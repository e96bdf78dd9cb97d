;; Tries to copy from a segment that does not exist.
(module
  (memory (export "memory") 2 4)
  (func (export "holdfast_abi_v1") (result i32) (i32.const 0))
  (func (export "holdfast_alloc") (param $len i32) (result i32)
    (i32.const 4096))
  (func (export "holdfast_decide") (param $ptr i32) (param $len i32) (result i64)
    (memory.init 0 (i32.const 0) (i32.const 0) (i32.const 0))
    (i64.const 0x400_0000000f)))
