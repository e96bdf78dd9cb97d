;; Control flow of every shape, in functions that call themselves, so that both
;; meters stand in their way. The answer mixes what all of them came to.
(module
  (memory (export "memory") 1)
  (global $started (mut i32) (i32.const 0))
  (start $start)
  (type $binary (func (param i32 i32) (result i32)))
  (table 2 funcref)
  (elem (i32.const 0) $add $sub)
  (func $start (global.set $started (i32.const 42)))
  (func (export "holdfast_abi_v1") (result i32) (i32.const 0))
  (func (export "holdfast_alloc") (param i32) (result i32) (i32.const 1024))
  (func $add (param i32 i32) (result i32) (i32.add (local.get 0) (local.get 1)))
  (func $sub (param i32 i32) (result i32) (i32.sub (local.get 0) (local.get 1)))

  ;; two results, several ways out
  (func $divmod (param $n i32) (param $d i32) (result i32 i64)
    (if (i32.eqz (local.get $d)) (then (return (i32.const -1) (i64.const -1))))
    (if (i32.lt_u (local.get $n) (local.get $d)) (then (i32.const 0) (i64.extend_i32_u (local.get $n)) (return)))
    (call $divmod (i32.sub (local.get $n) (local.get $d)) (local.get $d))
    (i64.const 0) (i64.add)
    (block (param i32 i64) (result i32 i64) (br_if 0 (local.get $d)) (unreachable)))

  ;; br_table into nested blocks, a loop with a result, a typed select
  (func $classify (param $n i32) (result i32)
    (local $turns i32)
    (block $three (block $two (block $one
      (br_table $one $two $three $one (i32.rem_u (local.get $n) (i32.const 4))))
      (return (i32.add (i32.const 10) (local.get $n))))
      (br_if $three (i32.gt_u (local.get $n) (i32.const 100)))
      (loop $again
        (local.set $turns (i32.add (local.get $turns) (i32.const 1)))
        (br_if $again (i32.lt_u (local.get $turns) (local.get $n))))
      (return (local.get $turns)))
    (if (result i32) (i32.and (local.get $n) (i32.const 8))
      (then (call_indirect (type $binary) (local.get $n) (i32.const 3) (i32.and (local.get $n) (i32.const 1))))
      (else (select (result i32) (local.get $n) (call $classify (i32.add (local.get $n) (i32.const 1))) (i32.const 0)))))

  (func $collatz (param $n i64) (result i64)
    (if (result i64) (i64.le_u (local.get $n) (i64.const 1))
      (then (i64.const 0))
      (else
        (if (result i64) (i64.eqz (i64.and (local.get $n) (i64.const 1)))
          (then (return (i64.add (i64.const 1) (call $collatz (i64.shr_u (local.get $n) (i64.const 1))))))
          (else (i64.add (i64.const 1) (call $collatz (i64.add (i64.mul (local.get $n) (i64.const 3)) (i64.const 1)))))))))

  (func (export "holdfast_decide") (param $ptr i32) (param $len i32) (result i64)
    (local $n i32) (local $rest i64)
    (local.set $n (i32.load (local.get $ptr)))
    (call $divmod (local.get $n) (i32.const 7))
    (local.set $rest)
    (i32.store (i32.const 2048))
    (i64.store (i32.const 2052) (local.get $rest))
    (i32.store (i32.const 2060) (call $classify (local.get $n)))
    (i64.store (i32.const 2064) (call $collatz (i64.extend_i32_u (local.get $n))))
    (i32.store (i32.const 2072) (global.get $started))
    (memory.fill (i32.const 2076) (local.get $n) (i32.and (local.get $n) (i32.const 31)))
    ;; the last thing that costs is not followed by a check
    (if (i32.and (local.get $n) (i32.const 1)) (then (i32.store (i32.const 2140) (i32.const 9))))
    (i64.const 0x80000000060)))                     ;; 96 bytes at 2048
