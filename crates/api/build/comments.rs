//! Splits a `.proto` comment into the description OpenAPI shows and the `+markers` the table needs. Declarative
//! validation's `+k8s:` markers repeat some of them with other meaning and are ignored.

#[derive(Default)]
pub struct Comment {
    pub description: String,
    markers: Vec<(String, String)>,
}

impl Comment {
    /// Follows kube-openapi's formatting: lines join to paragraphs, indented lines stay, text after `---` is private.
    pub fn parse(text: &str) -> Self {
        let mut comment = Comment::default();
        let mut private = false;
        let mut pending_break = false;
        for line in text.lines() {
            let line = line.strip_prefix(' ').unwrap_or(line).trim_end();
            if let Some(marker) = line.trim_start().strip_prefix('+') {
                comment.add_marker(marker);
                continue;
            }
            private |= line == "---";
            if private || line.starts_with("TODO") {
                continue;
            }
            if line.is_empty() {
                pending_break = !comment.description.is_empty();
                continue;
            }
            let indented = line.starts_with([' ', '\t']);
            comment.separate(pending_break, indented);
            pending_break = false;
            comment.description.push_str(line);
            if indented {
                comment.description.push('\n');
            }
        }
        comment.description.truncate(comment.description.trim_end().len());
        comment
    }

    fn separate(&mut self, paragraph: bool, indented: bool) {
        let text = &mut self.description;
        if text.is_empty() {
            return;
        }
        if paragraph {
            text.truncate(text.trim_end().len());
            text.push_str("\n\n");
        } else if indented {
            if !text.ends_with('\n') {
                text.push('\n');
            }
        } else if !text.ends_with('\n') {
            text.push(' ');
        }
    }

    fn add_marker(&mut self, marker: &str) {
        let (name, value) = marker.split_once('=').unwrap_or((marker, ""));
        if !name.contains(':') {
            self.markers.push((name.trim().to_owned(), value.trim().to_owned()));
        }
    }

    pub fn marker(&self, name: &str) -> Option<&str> {
        self.markers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.markers.iter().filter(move |(n, _)| n == name).map(|(_, value)| value.as_str())
    }
}
