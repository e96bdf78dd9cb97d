;; Tries to keep a count from call to call in every place it can reach, and
;; answers the sum of what it found there. It sums first and counts then.
(module
  (import "wasi_snapshot_preview1" "random_get" (func $random (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "clock_time_get" (func $clock (param i32 i64 i32) (result i32)))
  (memory (export "memory") 6 8)
  (data $seed "\01\01\01\01\01\01\01\01")
  (global $a (mut i32) (i32.const 0))
  (global $b (mut i64) (i64.const 0))
  (global $c (mut f32) (f32.const 0))
  (global $d (mut f64) (f64.const 0))
  (func (export "holdfast_abi_v1") (result i32) (i32.const 0))
  (func (export "holdfast_alloc") (param i32) (result i32) (i32.const 64))
  (func $bump (param $at i32)
    (i64.store (local.get $at) (i64.add (i64.load (local.get $at)) (i64.const 1))))
  (func $sum (result i64)
    (local $s i64)
    (local.set $s (i64.add (i64.extend_i32_u (global.get $a)) (global.get $b)))
    (local.set $s (i64.add (local.get $s) (i64.trunc_f32_u (global.get $c))))
    (local.set $s (i64.add (local.get $s) (i64.trunc_f64_u (global.get $d))))
    (local.set $s (i64.add (local.get $s) (i64.load (i32.const 1024))))   ;; a static
    (local.set $s (i64.add (local.get $s) (i64.load (i32.const 2045))))   ;; across blocks
    (local.set $s (i64.add (local.get $s) (i64.load (i32.const 65533))))  ;; across pages
    (local.set $s (i64.add (local.get $s) (i64.load (i32.const 393208)))) ;; the last bytes
    (local.set $s (i64.add (local.get $s) (i64.load (i32.const 100000)))) ;; memory.fill
    (local.set $s (i64.add (local.get $s) (i64.load (i32.const 150000)))) ;; memory.copy
    (local.set $s (i64.add (local.get $s) (i64.load (i32.const 200000)))) ;; memory.init
    (local.set $s (i64.add (local.get $s) (i64.load (i32.const 250001)))) ;; random bytes
    (local.set $s (i64.add (local.get $s) (i64.load (i32.const 300003)))) ;; the time
    (i64.add (local.get $s) (i64.load offset=6 (i32.const 64))))          ;; the input behind its end
  (func (export "holdfast_decide") (param $ptr i32) (param $len i32) (result i64)
    (i64.store (i32.const 16) (call $sum))
    (global.set $a (i32.add (global.get $a) (i32.const 1)))
    (global.set $b (i64.add (global.get $b) (i64.const 1)))
    (global.set $c (f32.add (global.get $c) (f32.const 1)))
    (global.set $d (f64.add (global.get $d) (f64.const 1)))
    (call $bump (i32.const 1024))
    (call $bump (i32.const 2045))
    (call $bump (i32.const 65533))
    (call $bump (i32.const 393208))
    (memory.fill (i32.const 100000) (i32.add (i32.load8_u (i32.const 100000)) (i32.const 1)) (i32.const 8))
    (memory.copy (i32.const 150000) (i32.const 1024) (i32.const 8))
    (memory.init $seed (i32.const 200000) (i32.const 0) (i32.const 8))
    (drop (call $random (i32.const 250001) (i32.const 8)))
    (drop (call $clock (i32.const 0) (i64.const 0) (i32.const 300003)))
    (i64.store offset=6 (local.get $ptr) (i64.const 1))
    (if (i32.eq (i32.load8_u (local.get $ptr)) (i32.const 103)) ;; g: grows and keeps a count there
      (then
        (if (i32.gt_u (memory.size) (i32.const 6)) (then (i64.store (i32.const 16) (i64.load (i32.const 393216)))))
        (drop (memory.grow (i32.const 1)))
        (call $bump (i32.const 393216))))
    (if (i32.eq (i32.load8_u (local.get $ptr)) (i32.const 116)) ;; t: keeps and traps
      (then unreachable))
    (i64.const 0x1000000008)))
