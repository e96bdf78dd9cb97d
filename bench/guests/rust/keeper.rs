//! Tries to keep a counter, a random pool and a secret across calls, and
//! answers what it found of the calls before.
#![no_std]
use core::arch::wasm32::{memory_grow, memory_size};
use holdfast::{Decision, Policy, Value};

const POOL_WORDS: usize = 4096;
const STEP: usize = 512;

struct Keeper {
    calls: i64,
    pool: [u32; POOL_WORDS],
    secret: [u8; 64],
    secret_len: usize,
    first_pages: usize,
}

holdfast::export!(Keeper, Keeper { calls: 0, pool: [0; POOL_WORDS], secret: [0; 64], secret_len: 0, first_pages: 0 });

impl Policy for Keeper {
    fn configure(&mut self, _: Value, _: Value) -> bool {
        self.first_pages = memory_size(0);
        true
    }

    fn decide(&mut self, request: Value, d: &mut Decision) {
        let id = request.get("subject").get("id").text();
        d.code = "kept";
        d.text.add(b"calls ");
        d.text.add_int(self.calls);
        d.text.add(b", pages ");
        d.text.add_int((memory_size(0) - self.first_pages) as i64);
        d.text.add(b", pool ");
        d.text.add_int(self.stir(id.len() as u32) as i64);
        d.text.add(b", secret ");
        d.text.add(&self.secret[..self.secret_len]);
        self.calls += 1;
        self.secret_len = id.len().min(self.secret.len());
        self.secret[..self.secret_len].copy_from_slice(&id[..self.secret_len]);
        if id == b"grow" {
            memory_grow(0, 1);
        }
    }
}

impl Keeper {
    fn stir(&mut self, mut seed: u32) -> u32 {
        let mut found = 0;
        for word in self.pool.iter_mut().step_by(STEP) {
            found |= *word;
            seed = seed.wrapping_add(word.wrapping_mul(747796405).wrapping_add(2891336453));
            *word = seed;
        }
        found
    }
}
