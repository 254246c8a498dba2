//! A file of weights as memory that the system reads when it is touched.

use std::{fs::File, io, ops::Deref, path::Path};

use memmap2::Mmap;

/// The bytes of a file, read only. None of them counts as the process's memory before it is touched.
#[derive(Debug)]
pub struct MappedFile(Mmap);

impl MappedFile {
    /// Maps the file at `path`.
    ///
    /// # Errors
    ///
    /// Those of the system, in opening the file and in mapping it.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        #[expect(
            unsafe_code,
            reason = "a map is undefined behaviour if another process shortens the file meanwhile; \
                      every reader of safetensors takes that risk, for nothing else loads a model \
                      larger than half the memory"
        )]
        // SAFETY: see the reason.
        let map = unsafe { Mmap::map(&file) }?;
        Ok(Self(map))
    }

    /// Gives the pages of `len` bytes from `start` on back to the system (Unix; elsewhere it does nothing). Bytes that
    /// were read and will not be read again else count as the process's memory beside what was made of them.
    pub fn forget(&self, start: usize, len: usize) {
        #[cfg(unix)]
        {
            #[expect(
                unsafe_code,
                reason = "the map is read-only and file-backed: a dropped page is read again from \
                          the file when touched"
            )]
            // SAFETY: see the reason.
            let advice = unsafe {
                self.0
                    .unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, start, len)
            };
            // Advice that is not taken costs memory, not correctness.
            let _ = advice;
        }
        #[cfg(not(unix))]
        let _ = (start, len);
    }
}

impl Deref for MappedFile {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}
