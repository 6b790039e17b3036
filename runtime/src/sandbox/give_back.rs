//! Memory that is given back to the kernel, in pieces.
//!
//! wasmtime clears a slot with one `madvise(2)`. After a guest that has used 128 MiB that takes some 10 ms, and a kernel
//! that preempts lazily (Linux 6.13, or newer) lets no waiting thread have the core before its next tick. Between two
//! pieces it does. wasmtime has no setting for it, so this function stands before the C library's for the whole program.

use std::ffi::{c_int, c_long, c_void};

/// Bytes of a piece, which takes the kernel less than 0.1 ms.
const PIECE: usize = 1 << 20;

/// `madvise(2)`.
///
/// # Safety
/// As that function's.
#[expect(unsafe_code, reason = "it is called as the C library's function is")]
#[unsafe(no_mangle)]
unsafe extern "C" fn madvise(address: *mut c_void, length: usize, advice: c_int) -> c_int {
    let piece = if advice == libc::MADV_DONTNEED { PIECE } else { usize::MAX };
    let mut done = 0;
    loop {
        let next = piece.min(length - done);
        // SAFETY: the caller vouches for the whole range.
        let result: c_long =
            unsafe { libc::syscall(libc::SYS_madvise, address.wrapping_byte_add(done), next, advice) };
        if result != 0 {
            return -1;
        }
        #[cfg(test)]
        tests::PIECES.set(tests::PIECES.get() + 1);
        done += next;
        if done >= length {
            return 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};

    use super::*;

    thread_local! {
        pub(super) static PIECES: Cell<usize> = const { Cell::new(0) };
    }

    /// By the function that wasmtime calls.
    #[test]
    #[expect(unsafe_code, reason = "it takes memory from the kernel")]
    fn all_of_it_is_given_back() -> Result<(), Box<dyn std::error::Error>> {
        let length = 3 * PIECE + 4096;
        let flags = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE);
        // SAFETY: the kernel chooses a free range, which nobody else knows of.
        unsafe {
            let start = mmap_anonymous(std::ptr::null_mut(), length, flags.0, flags.1)?;
            let bytes = std::slice::from_raw_parts_mut(start.cast::<u8>(), length);
            bytes.fill(1);
            let before = PIECES.get();
            madvise(start, length - 4096, Advice::LinuxDontNeed)?;
            assert!(PIECES.get() >= before + 3);
            assert!(bytes.iter().take(3 * PIECE).all(|byte| *byte == 0));
            assert!(bytes.iter().skip(3 * PIECE).all(|byte| *byte == 1));
            madvise(start, length, Advice::LinuxDontNeed)?;
            assert!(bytes.iter().all(|byte| *byte == 0));
            munmap(start, length)?;
            assert!(madvise(start, length, Advice::LinuxDontNeed).is_err());
        }
        Ok(())
    }
}
