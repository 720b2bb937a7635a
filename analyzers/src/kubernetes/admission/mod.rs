pub mod refusal;
pub mod webhooks;
