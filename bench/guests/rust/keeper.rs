//! Tries to keep a counter, a random pool and a secret across calls, and
//! answers what it found of the calls before.
#![no_std]
mod holdfast;
use core::arch::wasm32::{memory_grow, memory_size};
use core::cell::{Cell, RefCell};
use holdfast::{Decision, Policy, Request, Value};

const POOL_WORDS: usize = 2048;
const STEP: usize = 512;

struct Keeper {
    calls: Cell<i64>,
    pool: RefCell<[u32; POOL_WORDS]>,
    secret: RefCell<[u8; 64]>,
    secret_len: Cell<usize>,
    first_pages: usize,
}

holdfast::export!(Keeper);

impl Policy for Keeper {
    fn configure(_params: Value<'static>, _data: Value<'static>) -> Result<Self, &'static str> {
        let (pool, secret) = (RefCell::new([0; POOL_WORDS]), RefCell::new([0; 64]));
        Ok(Keeper { calls: Cell::new(0), pool, secret, secret_len: Cell::new(0), first_pages: memory_size(0) })
    }

    fn decide(&self, request: Request, answer: &mut Decision) {
        let (id, mut secret) = (request.subject().id(), self.secret.borrow_mut());
        let kept = core::str::from_utf8(&secret[..self.secret_len.get()]).unwrap_or("not a text");
        let reason = answer.deny("kept").say("calls ").say(self.calls.get()).say(", pages ").say(memory_size(0) - self.first_pages);
        reason.say(", pool ").say(self.stir(id.len() as u32) as i64).say(", secret ").say(kept);
        self.calls.set(self.calls.get() + 1);
        self.secret_len.set(id.len().min(secret.len()));
        secret[..self.secret_len.get()].copy_from_slice(&id.as_bytes()[..self.secret_len.get()]);
        if id == "grow" {
            memory_grow(0, 1);
        }
    }
}

impl Keeper {
    fn stir(&self, mut seed: u32) -> u32 {
        let mut found = 0;
        for word in self.pool.borrow_mut().iter_mut().step_by(STEP) {
            found |= *word;
            seed = seed.wrapping_add(word.wrapping_mul(747796405).wrapping_add(2891336453));
            *word = seed;
        }
        found
    }
}
