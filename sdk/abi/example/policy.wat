;; The guest contract, version 1, in one file: a policy that reads the request
;; and answers. It allows everything to the subject "root-agent", and to all
;; others the actions of a list. ../README.md says what each part must keep.
(module
  ;; Nine pages of 64 KiB: one for what is written below, eight for the input,
  ;; which is at most 512 KiB. It never grows.
  (memory (export "memory") 9 9)

  ;; What the policy knows. Nothing lies at address 0: it means "not there".
  (data (i32.const 16) "subjectidactionnameroot-agent")   ;; at 16, 23, 25, 31, 35
  ;; The names of the list, each behind its length; a length of 0 ends it.
  (data (i32.const 64) "\04read\04list\06search\00")

  ;; The answers, CBOR as it is sent: a map (a1, a2) of texts (60 + length).
  ;; {"reasons": [{"code": "root", "text": "root-agent may do all"}], "verdict": "allow"}
  (data (i32.const 128) "\a2\67reasons\81\a2\64code\64root\64text\75root-agent may do all\67verdict\65allow")
  ;; {"reasons": [{"code": "harmless", "text": "it changes nothing"}], "verdict": "allow"}
  (data (i32.const 256) "\a2\67reasons\81\a2\64code\68harmless\64text\72it changes nothing\67verdict\65allow")
  ;; {"reasons": [{"code": "not_listed", "text": "no rule allows this"}], "verdict": "deny"}
  (data (i32.const 384) "\a2\67reasons\81\a2\64code\6anot_listed\64text\73no rule allows this\67verdict\64deny")

  (global $end (mut i32) (i32.const 0))     ;; the first byte behind the input
  (global $major (mut i32) (i32.const 0))   ;; what the last head said: the kind
  (global $arg (mut i64) (i64.const 0))     ;; and the number beside it

  ;; Which version this is, and no feature bits.
  (func (export "holdfast_abi_v1") (result i32) (i32.const 0))

  ;; Where the host may put an input of so many bytes; 0 refuses it.
  (func (export "holdfast_alloc") (param $len i32) (result i32)
    (select (i32.const 65536) (i32.const 0) (i32.le_u (local.get $len) (i32.const 524288))))

  ;; One decision: the input lies at $ptr. Answers ptr << 32 | len of the output.
  (func (export "holdfast_decide") (param $ptr i32) (param $len i32) (result i64)
    (local $action i32)
    (global.set $end (i32.add (local.get $ptr) (local.get $len)))
    ;; Not exactly one item, or not well formed: 0, the guest's own error.
    (if (i32.ne (call $skip (local.get $ptr)) (global.get $end)) (then (return (i64.const 0))))
    ;; subject.id == "root-agent"
    (if (call $is (call $member (call $member (local.get $ptr) (i32.const 16) (i32.const 7)) (i32.const 23) (i32.const 2))
                  (i32.const 35) (i32.const 10))
      (then (return (call $answer (i32.const 128) (i32.const 62)))))
    ;; action.name in the list
    (local.set $action (call $member (call $member (local.get $ptr) (i32.const 25) (i32.const 6)) (i32.const 31) (i32.const 4)))
    (if (call $listed (local.get $action))
      (then (return (call $answer (i32.const 256) (i32.const 63)))))
    (call $answer (i32.const 384) (i32.const 65)))

  (func $answer (param $ptr i32) (param $len i32) (result i64)
    (i64.or (i64.shl (i64.extend_i32_u (local.get $ptr)) (i64.const 32)) (i64.extend_i32_u (local.get $len))))

  ;; Reads the head of the item at $p: its kind into $major, its number into
  ;; $arg. Answers where the item goes on, 0 when there is no head.
  (func $head (param $p i32) (result i32)
    (local $info i32) (local $n i32)
    (if (i32.or (i32.eqz (local.get $p)) (i32.ge_u (local.get $p) (global.get $end))) (then (return (i32.const 0))))
    (local.set $info (i32.and (i32.load8_u (local.get $p)) (i32.const 31)))
    (global.set $major (i32.shr_u (i32.load8_u (local.get $p)) (i32.const 5)))
    (global.set $arg (i64.extend_i32_u (local.get $info)))
    (local.set $p (i32.add (local.get $p) (i32.const 1)))
    (if (i32.lt_u (local.get $info) (i32.const 24)) (then (return (local.get $p))))   ;; the number itself
    (if (i32.gt_u (local.get $info) (i32.const 27)) (then (return (i32.const 0))))    ;; reserved, or no definite length
    (local.set $n (i32.shl (i32.const 1) (i32.sub (local.get $info) (i32.const 24)))) ;; 1, 2, 4 or 8 bytes follow
    (if (i32.gt_u (local.get $n) (i32.sub (global.get $end) (local.get $p))) (then (return (i32.const 0))))
    (global.set $arg (i64.const 0))
    (loop $byte
      (global.set $arg (i64.or (i64.shl (global.get $arg) (i64.const 8)) (i64.load8_u (local.get $p))))
      (local.set $p (i32.add (local.get $p) (i32.const 1)))
      (local.set $n (i32.sub (local.get $n) (i32.const 1)))
      (br_if $byte (local.get $n)))
    (local.get $p))

  ;; Answers where the item at $p ends, 0 when it is not well formed. It counts
  ;; what is still to come instead of calling itself, so that no nesting is too deep.
  (func $skip (param $p i32) (result i32)
    (local $left i64)
    (local.set $left (i64.const 1))
    (loop $item
      (if (i64.eqz (local.get $left)) (then (return (local.get $p))))
      (local.set $left (i64.sub (local.get $left) (i64.const 1)))
      (local.set $p (call $head (local.get $p)))
      (if (i32.eqz (local.get $p)) (then (return (i32.const 0))))
      (if (i32.or (i32.le_u (global.get $major) (i32.const 1)) (i32.eq (global.get $major) (i32.const 7))) (then (br $item)))
      (if (i32.eq (global.get $major) (i32.const 6)) (then (return (i32.const 0))))   ;; a tag: requests have none
      ;; bytes, text, list, map: no more of them than there are bytes left
      (if (i64.gt_u (global.get $arg) (i64.extend_i32_u (i32.sub (global.get $end) (local.get $p)))) (then (return (i32.const 0))))
      (if (i32.le_u (global.get $major) (i32.const 3))
        (then (local.set $p (i32.add (local.get $p) (i32.wrap_i64 (global.get $arg)))) (br $item)))
      (local.set $left (i64.add (local.get $left) (global.get $arg)))
      (if (i32.eq (global.get $major) (i32.const 5)) (then (local.set $left (i64.add (local.get $left) (global.get $arg)))))
      (br $item))
    (unreachable))

  ;; Answers where the value of the member is, 0 when $p is no map or has none.
  (func $member (param $p i32) (param $name i32) (param $len i32) (result i32)
    (local $left i64)
    (local.set $p (call $head (local.get $p)))
    (if (i32.or (i32.eqz (local.get $p)) (i32.ne (global.get $major) (i32.const 5))) (then (return (i32.const 0))))
    (local.set $left (global.get $arg))
    (loop $next
      (if (i64.eqz (local.get $left)) (then (return (i32.const 0))))
      (local.set $left (i64.sub (local.get $left) (i64.const 1)))
      (if (call $is (local.get $p) (local.get $name) (local.get $len)) (then (return (call $skip (local.get $p)))))
      (local.set $p (call $skip (call $skip (local.get $p))))
      (br_if $next (local.get $p)))
    (i32.const 0))

  ;; Whether the item at $p is the text of $len bytes at $text.
  (func $is (param $p i32) (param $text i32) (param $len i32) (result i32)
    (local.set $p (call $head (local.get $p)))
    (if (i32.or (i32.eqz (local.get $p)) (i32.ne (global.get $major) (i32.const 3))) (then (return (i32.const 0))))
    (if (i64.ne (global.get $arg) (i64.extend_i32_u (local.get $len))) (then (return (i32.const 0))))
    (if (i32.gt_u (local.get $len) (i32.sub (global.get $end) (local.get $p))) (then (return (i32.const 0))))
    (loop $byte
      (if (i32.eqz (local.get $len)) (then (return (i32.const 1))))
      (local.set $len (i32.sub (local.get $len) (i32.const 1)))
      (br_if $byte (i32.eq (i32.load8_u (i32.add (local.get $p) (local.get $len)))
                           (i32.load8_u (i32.add (local.get $text) (local.get $len))))))
    (i32.const 0))

  ;; Whether the item at $p is one of the list's names.
  (func $listed (param $p i32) (result i32)
    (local $name i32) (local $len i32)
    (local.set $name (i32.const 64))
    (loop $next
      (local.set $len (i32.load8_u (local.get $name)))
      (if (i32.eqz (local.get $len)) (then (return (i32.const 0))))
      (local.set $name (i32.add (local.get $name) (i32.const 1)))
      (if (call $is (local.get $p) (local.get $name) (local.get $len)) (then (return (i32.const 1))))
      (local.set $name (i32.add (local.get $name) (local.get $len)))
      (br $next))
    (unreachable)))
