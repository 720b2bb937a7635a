//! The words that docs/style.md forbids: the first column of its first table.

/// The style guide.
const GUIDE: &str = include_str!("../../../docs/style.md");

/// What a text says that it must not say. `48s`, `3d` and `X` in the guide stand for any word.
pub(crate) fn violations(text: &str) -> Vec<String> {
    let words = words(text);
    let says = |phrase: &Vec<String>| {
        (0..words.len()).any(|at| {
            let rest = &words[at..];
            // What must be written contains it: "has been not ready for 48s".
            let is_mended = at > 0 && words[at - 1] == "been";
            !is_mended
                && rest.len() >= phrase.len()
                && rest.iter().zip(phrase).all(|(word, wanted)| is_like(word, wanted))
        })
    };
    forbidden().into_iter().filter(|phrase| says(phrase)).map(|phrase| phrase.join(" ")).collect()
}

fn is_like(word: &str, wanted: &str) -> bool {
    let is_any = wanted.chars().any(|c| c.is_ascii_digit());
    word == wanted || (is_any && word.starts_with(|c: char| c.is_ascii_digit()))
}

/// In lower case, without punctuation; names with hyphens, dots or slashes are one word.
fn words(text: &str) -> Vec<String> {
    let is_part = |c: char| c.is_alphanumeric() || "-_./:'’".contains(c);
    let words = text.split(|c: char| !is_part(c)).map(|word| word.trim_matches(|c: char| !c.is_alphanumeric()));
    words.filter(|word| !word.is_empty()).map(str::to_lowercase).collect()
}

fn forbidden() -> Vec<Vec<String>> {
    let rows = GUIDE.lines().skip_while(|line| !line.starts_with("| never |")).skip(2);
    let cells = rows.take_while(|line| line.starts_with('|')).filter_map(|line| line.split('|').nth(1));
    let phrases: Vec<Vec<String>> = cells.flat_map(|cell| cell.split(',')).map(words).collect();
    assert!(phrases.len() > 25, "docs/style.md has its table");
    phrases
}

#[cfg(test)]
mod tests {
    use super::violations;

    #[test]
    fn forbidden_words_are_found() {
        assert_eq!(violations("The claim is made anew."), ["made", "made anew", "anew"]);
        assert_eq!(violations("The node is not ready for 12m"), ["not ready for 48s"]);
        assert_eq!(violations("The node has been not ready for 12m"), [""; 0]);
        assert_eq!(violations("claim never-made, so also what it says"), ["so also"]);
        assert_eq!(violations("Service cart selects no pods"), [""; 0]);
    }
}
