//! Random bytes for names and identities, fetched from the kernel for many of them at once.

use std::cell::RefCell;

use ring::rand::{SecureRandom, SystemRandom};

/// What one system call brings: enough for thirty-two identities.
const POOL_BYTES: usize = 512;

thread_local! {
    static POOL: RefCell<Pool> = const { RefCell::new(Pool { bytes: [0; POOL_BYTES], left: 0 }) };
}

/// Bytes that nobody has been given yet, at the beginning.
struct Pool {
    bytes: [u8; POOL_BYTES],
    left: usize,
}

impl Pool {
    fn fill(&mut self, buffer: &mut [u8]) {
        for part in buffer.chunks_mut(POOL_BYTES) {
            if part.len() > self.left {
                from_kernel(&mut self.bytes);
                self.left = POOL_BYTES;
            }
            self.left -= part.len();
            let given = &mut self.bytes[self.left..][..part.len()];
            part.copy_from_slice(given);
            given.fill(0);
        }
    }
}

fn from_kernel(buffer: &mut [u8]) {
    SystemRandom::new().fill(buffer).expect("the kernel gives random bytes");
}

pub fn fill(buffer: &mut [u8]) {
    POOL.with_borrow_mut(|pool| pool.fill(buffer));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_byte_is_given_twice_or_left_out() {
        let mut pool = Pool { bytes: [7; POOL_BYTES], left: 20 };
        let (mut first, mut second) = ([0; 16], [0; 16]);
        pool.fill(&mut first);
        assert_eq!((first, pool.left, &pool.bytes[4..20]), ([7; 16], 4, &[0; 16][..]));
        pool.fill(&mut second);
        assert_ne!(second, first, "what is left is too little");
        assert_eq!(pool.left, POOL_BYTES - 16);
        let mut long = vec![0; 3 * POOL_BYTES + 5];
        pool.fill(&mut long);
        let zeros = long.windows(16).filter(|window| window.iter().all(|byte| *byte == 0)).count();
        assert_eq!(zeros, 0);
    }
}
