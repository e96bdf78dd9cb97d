;; Tries to answer a verdict twice, deny and allow.
(module
  (memory (export "memory") 2 4)
  (func (export "holdfast_abi_v1") (result i32) (i32.const 0))
  (func (export "holdfast_alloc") (param $len i32) (result i32)
    (i32.const 4096))
  (func (export "holdfast_decide") (param $ptr i32) (param $len i32) (result i64)
    (i64.const 0x400_0000001c))
  (data (i32.const 1024) "\a2\67\76\65\72\64\69\63\74\64\64\65\6e\79\67\76\65\72\64\69\63\74\65\61\6c\6c\6f\77"))
