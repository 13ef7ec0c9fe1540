//! The ciphers against what others have reckoned, and whole files of them against golden ones.
