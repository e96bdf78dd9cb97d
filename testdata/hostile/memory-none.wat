;; Tries no memory.
(module (func (export "holdfast_abi_v1") (result i32) (i32.const 0)))
