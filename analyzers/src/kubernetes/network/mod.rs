pub mod certificate;
pub mod cluster_dns;
pub mod corefile;
pub mod endpoints;
pub mod gateway_api;
pub mod ingress;
pub mod netpol;
pub mod outage;
