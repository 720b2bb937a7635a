//! `-o yaml`: the structure of `-o json`, for people who read YAML more easily.

use crate::report::Report;

/// # Errors
/// None is known; the report is made of strings, numbers, lists and maps.
pub fn render(report: &Report) -> Result<String, serde_saphyr::ser::Error> {
    // Block scalars would make text from the cluster look like structure.
    let options = serde_saphyr::ser_options! { prefer_block_scalars: false };
    serde_saphyr::to_string_with_options(report, options)
}
