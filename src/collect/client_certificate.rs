//! Who the program is to the API server, as far as that can be seen from here: a client certificate that is over
//! explains a refusal better than the API server does, which only says "Unauthorized".

use std::path::Path;

use jiff::Timestamp;
use kube::config::AuthInfo;
use kubectl_gpt_analyzers::kubernetes::network::certificate::{self, Certificate};

/// The client certificate of a user of the kubeconfig.
#[derive(Debug, Default)]
pub(super) struct ClientCertificate {
    user: String,
    certificate: Option<Certificate>,
}

impl ClientCertificate {
    pub fn of(auth: &AuthInfo, user: &str) -> ClientCertificate {
        // As kube and kubectl do: the data counts more than the file.
        let chain = match (&auth.client_certificate_data, &auth.client_certificate) {
            (Some(data), _) => certificate::from_base64(data).ok(),
            (None, Some(file)) => read(Path::new(file)),
            (None, None) => None,
        };
        ClientCertificate { user: user.to_string(), certificate: chain.and_then(|chain| chain.into_iter().next()) }
    }

    /// The cause, and what is wrong with the certificate at a time, if anything is.
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
