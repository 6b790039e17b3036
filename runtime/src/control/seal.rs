//! The seal on variables: AES-256-GCM under a key of the node (NIST SP 800-38D).
//!
//! A sealed value is a random nonce of 96 bits and then the ciphertext with its tag. It says nothing about what it
//! belongs to; that is authenticated with it, so that a value moved to another row does not open.

use aes_gcm::aead::{Aead as _, KeyInit as _, Payload};
use aes_gcm::{Aes256Gcm, Nonce};

const NONCE_BYTES: usize = 12;

/// What a sealed value has more than the value: the nonce and the tag.
pub(super) const OVERHEAD_BYTES: usize = NONCE_BYTES + 16;

/// A value could not be sealed.
#[derive(Debug, thiserror::Error)]
#[error("the value cannot be sealed: {0}")]
pub struct SealError(String);

/// Seals and unseals.
pub(super) struct Seal(Aes256Gcm);

impl Seal {
    /// A seal with a key.
    pub(super) fn new(key: [u8; 32]) -> Self {
        Self(Aes256Gcm::new(&key.into()))
    }

    /// Seals a value for what `belongs_to` says.
    ///
    /// # Errors
    /// When the operating system has no random bits.
    pub(super) fn seal(&self, value: &[u8], belongs_to: &[u8]) -> Result<Vec<u8>, SealError> {
        let mut nonce = [0; NONCE_BYTES];
        getrandom::fill(&mut nonce).map_err(|error| SealError(error.to_string()))?;
        let payload = Payload { msg: value, aad: belongs_to };
        let sealed = self.0.encrypt(&Nonce::from(nonce), payload);
        let sealed = sealed.map_err(|error| SealError(error.to_string()))?;
        Ok([&nonce[..], &sealed].concat())
    }

    /// The value, if this key has sealed it for what `belongs_to` says.
    pub(super) fn unseal(&self, sealed: &[u8], belongs_to: &[u8]) -> Option<Vec<u8>> {
        let (nonce, sealed) = sealed.split_first_chunk::<NONCE_BYTES>()?;
        self.0.decrypt(&Nonce::from(*nonce), Payload { msg: sealed, aad: belongs_to }).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_opens_where_it_was_sealed_and_nowhere_else() -> Result<(), SealError> {
        let seal = Seal::new([7; 32]);
        let sealed = seal.seal(b"hunter2", b"acme/password")?;
        assert_eq!(seal.unseal(&sealed, b"acme/password").as_deref(), Some(&b"hunter2"[..]));
        assert_eq!(seal.unseal(&sealed, b"other/password"), None);
        assert_eq!(Seal::new([8; 32]).unseal(&sealed, b"acme/password"), None);
        for byte in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed.iter_mut().skip(byte).take(1).for_each(|byte| *byte ^= 1);
            assert_eq!(seal.unseal(&changed, b"acme/password"), None, "byte {byte}");
        }
        assert_eq!(seal.unseal(b"short", b"acme/password"), None);
        Ok(())
    }

    #[test]
    fn the_same_value_is_never_sealed_alike() -> Result<(), SealError> {
        let seal = Seal::new([7; 32]);
        let (one, other) = (seal.seal(b"", b"a")?, seal.seal(b"", b"a")?);
        assert_ne!(one, other);
        assert_eq!(seal.unseal(&one, b"a").as_deref(), Some(&b""[..]));
        assert_eq!(one.len(), OVERHEAD_BYTES);
        Ok(())
    }
}
