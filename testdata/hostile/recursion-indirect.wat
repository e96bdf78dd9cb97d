;; Tries recursion through the table, which no call graph shows.
(module
  (memory (export "memory") 2 4)
  (data (i32.const 1024) "\a1\67verdict\65allow")
  (func (export "holdfast_abi_v1") (result i32) (i32.const 0))
  (func (export "holdfast_alloc") (param $len i32) (result i32)
    (i32.const 4096))
  (func (export "holdfast_decide") (param $ptr i32) (param $len i32) (result i64)
    (call_indirect (type $f) (i32.const 0) (i32.const 0)))
  (type $f (func (param i32) (result i64)))
  (table 1 funcref)
  (elem (i32.const 0) $self)
  (func $self (param i32) (result i64) (i64.add (call_indirect (type $f) (local.get 0) (i32.const 0)) (i64.const 1))))
