//! `-o yaml`: the same data as `-o json`, in YAML.

use crate::report::Report;

/// # Errors
/// None are known; the report consists of strings, numbers, lists and maps.
pub fn render(report: &Report) -> Result<String, serde_saphyr::ser::Error> {
    // Block scalars would make text from the cluster look like YAML structure.
    let options = serde_saphyr::ser_options! { prefer_block_scalars: false };
    serde_saphyr::to_string_with_options(report, options)
}
