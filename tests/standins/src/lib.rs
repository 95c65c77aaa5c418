//! Test doubles with teeth for the two parts of PMM that cannot be fetched in every environment: the PMM Server image and the
//! PMM client programs. Nothing here is used by the product, and nothing of the product is used here.

pub mod client;
pub mod server;
pub mod wire;
