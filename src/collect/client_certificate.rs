//! Checks the client certificate: an expired one explains a rejected request better than the API server's
//! "Unauthorized".

use std::path::Path;

use jiff::Timestamp;
use kube::config::AuthInfo;
use kubectl_gpt_analyzers::kubernetes::certificate::{self, Certificate};

/// The client certificate of a kubeconfig user.
#[derive(Debug, Default)]
pub(super) struct ClientCertificate {
    user: String,
    certificate: Option<Certificate>,
}

impl ClientCertificate {
    pub fn of(auth: &AuthInfo, user: &str) -> ClientCertificate {
        // As in kube and kubectl, the data takes precedence over the file.
        let chain = match (&auth.client_certificate_data, &auth.client_certificate) {
            (Some(data), _) => certificate::from_base64(data).ok(),
            (None, Some(file)) => read(Path::new(file)),
            (None, None) => None,
        };
        ClientCertificate { user: user.to_string(), certificate: chain.and_then(|chain| chain.into_iter().next()) }
    }

    /// Appends to the cause what is wrong with the certificate at a given time, if anything.
    pub fn explain(&self, cause: String, now: Timestamp) -> String {
        match self.fault(now) {
            Some(fault) => format!("{cause}; {fault}"),
            None => cause,
        }
    }

    fn fault(&self, now: Timestamp) -> Option<String> {
        let Certificate { not_before, not_after, .. } = self.certificate.as_ref()?;
        let about = format!("the client certificate of user \"{}\"", self.user);
        if now > *not_after {
            Some(format!("{about} expired on {}", certificate::day(*not_after)))
        } else if now < *not_before {
            Some(format!("{about} is not valid before {}", certificate::day(*not_before)))
        } else {
            None
        }
    }
}

fn read(file: &Path) -> Option<Vec<Certificate>> {
    certificate::from_pem(&std::fs::read(file).ok()?).ok()
}
