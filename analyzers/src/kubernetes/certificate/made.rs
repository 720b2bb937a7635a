//! Certificates for tests, encoded by hand (X.690 DER) so that tests can choose any names and dates. Their signatures are
//! empty, because nothing verifies them.

use k8s_openapi::ByteString;

/// A certificate under construction: valid for the year 2026, signed by `Example CA`.
pub(crate) struct Made {
    names: Vec<String>,
    addresses: Vec<[u8; 4]>,
    common_name: String,
    issuer: String,
    from: &'static str,
    to: &'static str,
    is_ca: bool,
}

impl Made {
    pub(crate) fn for_names(names: &[&str]) -> Made {
        Made {
            names: names.iter().map(std::string::ToString::to_string).collect(),
            addresses: Vec::new(),
            common_name: names.first().copied().unwrap_or_default().to_string(),
            issuer: "Example CA".to_string(),
            from: "20260101000000Z",
            to: "20270101000000Z",
            is_ca: false,
        }
    }

    pub(crate) fn ca(name: &str) -> Made {
        Made { common_name: name.to_string(), issuer: name.to_string(), is_ca: true, ..Made::for_names(&[]) }
    }

    pub(crate) fn address(mut self, address: [u8; 4]) -> Made {
        self.addresses.push(address);
        self
    }

    pub(crate) fn common_name(mut self, name: &str) -> Made {
        self.common_name = name.to_string();
        self
    }

    pub(crate) fn issuer(mut self, name: &str) -> Made {
        self.issuer = name.to_string();
        self
    }

    /// As `GeneralizedTime`: `20260101000000Z`.
    pub(crate) fn valid(mut self, from: &'static str, to: &'static str) -> Made {
        (self.from, self.to) = (from, to);
        self
    }

    pub(crate) fn der(&self) -> Vec<u8> {
        let ed25519 = der(0x30, &[0x06, 0x03, 0x2b, 0x65, 0x70]);
        let key = der(0x30, &[ed25519.clone(), der(0x03, &[0; 33])].concat());
        let validity = [der(0x18, self.from.as_bytes()), der(0x18, self.to.as_bytes())].concat();
        let to_be_signed = [
            der(0xa0, &[0x02, 0x01, 0x02]),
            der(0x02, &[0x01]),
            ed25519.clone(),
            name(&self.issuer),
            der(0x30, &validity),
            name(&self.common_name),
            key,
            der(0xa3, &der(0x30, &self.extensions())),
        ];
        der(0x30, &[der(0x30, &to_be_signed.concat()), ed25519, der(0x03, &[0; 65])].concat())
    }

    fn extensions(&self) -> Vec<u8> {
        let dns = self.names.iter().map(|name| der(0x82, name.as_bytes()));
        let names: Vec<u8> = dns.chain(self.addresses.iter().map(|address| der(0x87, address))).flatten().collect();
        let constraints = if self.is_ca { vec![0x01, 0x01, 0xff] } else { Vec::new() };
        let mut extensions = extension(0x13, &der(0x30, &constraints));
        if !names.is_empty() {
            extensions.extend(extension(0x11, &der(0x30, &names)));
        }
        extensions
    }

    pub(crate) fn pem(&self) -> String {
        format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", base64(self.der()))
    }

    /// As in `data` of a Secret.
    pub(crate) fn base64(&self) -> String {
        chain(&[self])
    }
}

/// Several certificates as in `data` of a Secret.
pub(crate) fn chain(certificates: &[&Made]) -> String {
    base64(certificates.iter().map(|made| made.pem()).collect::<String>().into_bytes())
}

fn base64(bytes: Vec<u8>) -> String {
    serde_json::to_value(ByteString(bytes)).unwrap().as_str().unwrap().to_string()
}

fn extension(id: u8, value: &[u8]) -> Vec<u8> {
    der(0x30, &[vec![0x06, 0x03, 0x55, 0x1d, id], der(0x04, value)].concat())
}

fn name(common_name: &str) -> Vec<u8> {
    let attribute = [vec![0x06, 0x03, 0x55, 0x04, 0x03], der(0x0c, common_name.as_bytes())].concat();
    der(0x30, &der(0x31, &der(0x30, &attribute)))
}

/// Tag, length, value.
fn der(tag: u8, value: &[u8]) -> Vec<u8> {
    let length = value.len();
    let mut bytes = match length {
        0..=127 => vec![tag, length as u8],
        _ => vec![tag, 0x82, (length >> 8) as u8, length as u8],
    };
    bytes.extend(value);
    bytes
}
