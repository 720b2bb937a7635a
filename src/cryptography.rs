//! The cryptography of TLS.

/// Selects the implementation that all connections of the process use. Repeated calls have no effect.
pub fn install() {
    #[cfg(feature = "aws-lc-rs")]
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    #[cfg(not(feature = "aws-lc-rs"))]
    let provider = rustls::crypto::ring::default_provider();
    // A second installation is refused; the first one is the same.
    let _ = provider.install_default();
}
