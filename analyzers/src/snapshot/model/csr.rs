use super::{Condition, Meta, api_types};

api_types! {
    /// certificates.k8s.io CertificateSigningRequest.
    pub struct CertificateSigningRequest {
        pub metadata: Meta,
        pub spec: CertificateSigningRequestSpec,
        pub status: CertificateSigningRequestStatus,
    }

    pub struct CertificateSigningRequestSpec {
        /// PKCS #10 in PEM, base64-encoded as in the API.
        pub request: String,
        pub signer_name: String,
        pub username: String,
    }

    pub struct CertificateSigningRequestStatus {
        pub conditions: Box<[Condition]>,
    }
}
