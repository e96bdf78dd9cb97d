;; Tries to count its calls in memory, in a global and in what lies behind the input; the second call traps if the first left a trace.
(module
  (memory (export "memory") 2 4)
  (data (i32.const 1024) "\a1\67verdict\65allow")
  (func (export "holdfast_abi_v1") (result i32) (i32.const 0))
  (func (export "holdfast_alloc") (param $len i32) (result i32)
    (i32.const 4096))
  (func (export "holdfast_decide") (param $ptr i32) (param $len i32) (result i64)
    (if (i32.or (global.get $calls) (i32.or (i32.load (i32.const 65536)) (i32.load (i32.add (local.get $ptr) (i32.const 60000))))) (then (unreachable)))
    (global.set $calls (i32.const 1))
    (i32.store (i32.const 65536) (i32.const 1))
    (i32.store (i32.add (local.get $ptr) (i32.const 60000)) (i32.const 1))
    (i64.const 0x400_0000000f))
  (global $calls (mut i32) (i32.const 0)))
