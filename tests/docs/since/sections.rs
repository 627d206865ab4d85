//! Finds text in the docs that a reader of the rendered pages does not see.

/// Each section of a file's docs without text, and each paragraph that Markdown parses as the definition of a
/// link. Such a paragraph is not rendered.
pub fn unrendered(file: &str, source: &str) -> Vec<String> {
    let mut unrendered = vec![];
    let mut state = State::default();
    for (number, line) in (1..).zip(source.lines()) {
        let line = line.trim();
        // Text from a macro counts, too.
        let made_up = line.starts_with("#[doc = concat!(").then_some(line);
        let doc = line.strip_prefix("///").or(line.strip_prefix("//!"));
        let doc = doc.or(made_up);
        let problem = match doc {
            Some(text) => state.read(text.trim()),
            None => state.end(),
        };
        unrendered.extend(problem.map(|problem| format!("{file}:{number}: {problem}")));
    }
    unrendered.extend(state.end().map(|problem| format!("{file}: {problem}")));
    unrendered
}

/// The position of a line in the docs of an item.
struct State {
    is_code: bool,
    begins_paragraph: bool,
    /// The section that has no text so far.
    empty: Option<String>,
    /// True after a line that ends with a label in brackets and a colon.
    label: bool,
}

impl Default for State {
    fn default() -> Self {
        Self {
            is_code: false,
            begins_paragraph: true,
            empty: None,
            label: false,
        }
    }
}

impl State {
    fn read(&mut self, text: &str) -> Option<String> {
        if text.starts_with("```") {
            self.is_code = !self.is_code;
            self.empty = None;
            return None;
        }
        if self.is_code {
            return None;
        }
        let begins = std::mem::replace(&mut self.begins_paragraph, text.is_empty());
        let follows_label = std::mem::take(&mut self.label);
        if text.is_empty() {
            return None;
        }
        if let Some(title) = text.strip_prefix("# ") {
            self.begins_paragraph = true;
            let before = self.empty.replace(title.to_owned());
            return before.map(|title| format!("nothing under {title:?}"));
        }
        let is_alone = |text: &str| !text.contains(char::is_whitespace);
        let rest = text
            .strip_prefix('[')
            .and_then(|text| text.split_once("]:"));
        let is_definition = match rest {
            // The destination may stand on the next line.
            Some((_, "")) if begins => {
                self.label = true;
                false
            }
            Some((_, rest)) => begins && is_alone(rest.trim()),
            None => follows_label && is_alone(text),
        };
        self.empty = None;
        is_definition.then(|| format!("shown as nothing: {text}"))
    }

    /// Ends the docs of an item.
    fn end(&mut self) -> Option<String> {
        let ended = std::mem::take(self);
        ended.empty.map(|title| format!("nothing under {title:?}"))
    }
}
