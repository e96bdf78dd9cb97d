;; The reference guest: it does what the first byte of its input says, a to z as
;; listed at the end; any other byte answers how long its parameters were. Made
;; by wat2wasm reference.wat -o reference.wasm (wabt 1.0.39).
(module
  (import "holdfast_v1" "log" (func $log (param i32 i32 i32)))
  (import "holdfast_v1" "now" (func $now (result i64)))
  (import "holdfast_v1" "match" (func $match (param i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "random_get" (func $random (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 2)
  (table 2 funcref)
  (elem (i32.const 0) $f_i32)
  (type $none (func))
  (type $i32 (func (result i32)))
  (global $counter (mut i32) (i32.const 0))
  (global $wide (mut i64) (i64.const 0))
  (global $float (mut f64) (f64.const 0))
  (data (i32.const 1024) "\07\00\00\00")          ;; a counter in memory, begins as 7
  (data (i32.const 1100) "a message of the guest")

  (func (export "holdfast_abi_v1") (result i32) (i32.const 0))
  ;; one input buffer at 4096; inputs of 13 bytes get an address that is a lie, of 14 none
  (func (export "holdfast_alloc") (param $len i32) (result i32)
    (if (i32.eq (local.get $len) (i32.const 13)) (then (return (i32.const 0x7ffffff0))))
    (if (i32.eq (local.get $len) (i32.const 14)) (then (return (i32.const 0))))
    (i32.const 4096))

  (func (export "holdfast_init") (param $ptr i32) (param $len i32) (result i32)
    (i32.store (i32.const 1200) (local.get $len))
    (i32.const 0))
  ;; as long as a name that the meter has, so that a test can make it that name
  (global (export "a_name_of__19_bytes") i32 (i32.const 0))

  (func $f_i32 (result i32) (i32.const 1))
  (func $out (param $ptr i32) (param $len i32) (result i64)
    (i64.or (i64.shl (i64.extend_i32_u (local.get $ptr)) (i64.const 32)) (i64.extend_i32_u (local.get $len))))
  ;; answers the 8 bytes of a number, at 2048
  (func $number (param $n i64) (result i64)
    (i64.store (i32.const 2048) (local.get $n))
    (call $out (i32.const 2048) (i32.const 8)))

  (func $loop (loop $l (br $l)))
  (func $even (param i32) (result i32) (i32.add (call $odd (i32.add (local.get 0) (i32.const 1))) (i32.const 1)))
  (func $odd (param i32) (result i32) (i32.add (call $even (i32.add (local.get 0) (i32.const 1))) (i32.const 1)))
  ;; calls itself twice, so that depth alone does not end it
  (func $tree (param i32) (result i32)
    (if (result i32) (i32.eqz (local.get 0))
      (then (i32.const 1))
      (else (i32.add (call $tree (i32.sub (local.get 0) (i32.const 1)))
                     (call $tree (i32.sub (local.get 0) (i32.const 1)))))))
  (func $fill (loop $l (call $log (i32.const 1) (i32.const 1100) (i32.const 22)) 
    (memory.fill (i32.const 65536) (i32.const 1) (i32.const 65536)) (br $l)))
  (func $copy (loop $l (call $log (i32.const 1) (i32.const 1100) (i32.const 22)) 
    (memory.copy (i32.const 65536) (i32.const 0) (i32.const 65536)) (br $l)))
  (func $grow (loop $l (call $log (i32.const 1) (i32.const 1100) (i32.const 22)) 
    (drop (memory.grow (i32.const 1))) (br $l)))
  (func $flood (loop $l (drop (call $now)) (br $l)))
  (func $logs (loop $l (call $log (i32.const 1) (i32.const 1100) (i32.const 22)) (br $l)))
  (func $count (result i64)
    (global.set $counter (i32.add (global.get $counter) (i32.const 1)))
    (global.set $wide (i64.add (global.get $wide) (i64.const 1)))
    (global.set $float (f64.add (global.get $float) (f64.const 1)))
    (i32.store (i32.const 1024) (i32.add (i32.load (i32.const 1024)) (i32.const 1)))
    ;; a page that the snapshot has as zeros
    (i64.store (i32.const 131064) (i64.add (i64.load (i32.const 131064)) (i64.const 1)))
    (call $number (i64.add (i64.add (i64.extend_i32_u (global.get $counter)) (global.get $wide))
      (i64.add (i64.trunc_f64_u (global.get $float))
        (i64.add (i64.load32_u (i32.const 1024)) (i64.load (i32.const 131064)))))))
  (func $random8 (result i64)
    (drop (call $random (i32.const 2048) (i32.const 8)))
    (call $out (i32.const 2048) (i32.const 8)))
  (func $stdout (result i64)
    (i32.store (i32.const 3000) (i32.const 1100))
    (i32.store (i32.const 3004) (i32.const 22))
    (drop (call $write (i32.const 1) (i32.const 3000) (i32.const 1) (i32.const 3008)))
    (call $number (i64.load32_u (i32.const 3008))))

  (func (export "holdfast_decide") (param $ptr i32) (param $len i32) (result i64)
    (block $default
    (block $z (block $y (block $x (block $w (block $v (block $u (block $t (block $s (block $r (block $q (block $p (block $o (block $n
    (block $m (block $l (block $k (block $j (block $i (block $h (block $g (block $f (block $e (block $d (block $c (block $b (block $a
      (br_table $a $b $c $d $e $f $g $h $i $j $k $l $m $n $o $p $q $r $s $t $u $v $w $x $y $z $default
        (i32.sub (i32.load8_u (local.get $ptr)) (i32.const 97))))
      (return (call $out (local.get $ptr) (local.get $len))))                       ;; a: echo
      (return (call $count)))                                                        ;; b: count
      (call $loop) (unreachable))                                                    ;; c: infinite loop
      (return (i64.extend_i32_u (call $even (i32.const 0)))))                        ;; d: mutual recursion
      (return (i64.extend_i32_u (call $tree (i32.const 60)))))                       ;; e: exponential recursion
      (call $fill) (unreachable))                                                    ;; f: memory.fill storm
      (call $copy) (unreachable))                                                    ;; g: memory.copy storm
      (call $grow) (unreachable))                                                    ;; h: memory.grow storm
      (call $flood) (unreachable))                                                   ;; i: host call flood
      (call $logs) (unreachable))                                                    ;; j: log flood
      (return (call $out (i32.const 131070) (i32.const 3))))                         ;; k: output ends behind the memory
      (return (call $out (i32.const 0xffffffff) (i32.const 16))))                    ;; l: output far outside
      (return (call $out (i32.const 0) (i32.const 65537))))                          ;; m: output 64 KiB + 1
      (return (call $out (i32.const 0) (i32.const 65536))))                          ;; n: output 64 KiB
      (return (i64.const 0)))                                                        ;; o: guest error
      (return (call $number (i64.div_u (i64.const 1) (i64.load (i32.const 8))))))    ;; p: divide by zero
      (return (call $number (i64.load (i32.const 131065)))))                         ;; q: read behind the memory
      (return (call $number (i64.extend_i32_u (call_indirect (type $i32) (i32.const 5))))))   ;; r: no such table entry
      (call_indirect (type $none) (i32.const 0)) (unreachable))                      ;; s: wrong type
      (unreachable))                                                                 ;; t: unreachable
      (call $exit (i32.const 3)) (unreachable))                                      ;; u: proc_exit
      (return (call $number (call $now))))                                           ;; v: now
      (return (call $number (i64.extend_i32_s (call $match (i32.sub (i32.load8_u offset=1 (local.get $ptr)) (i32.const 48))
        (i32.add (local.get $ptr) (i32.const 2)) (i32.sub (local.get $len) (i32.const 2)))))))  ;; w: match
      (return (call $random8)))                                                      ;; x: random
      (return (call $stdout)))                                                       ;; y: standard output
      (drop (memory.grow (i32.const 1))) (return (call $number (i64.extend_i32_u (memory.size)))))  ;; z: grow by one page
    (call $number (i64.load32_u (i32.const 1200)))))
