pub mod call;
pub mod refusal;
pub mod webhooks;
