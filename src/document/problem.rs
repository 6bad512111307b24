//! Problems of a document: collected, counted, rendered.

use std::{cell::RefCell, ops::Range, path::PathBuf};

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};

/// Which of the files known to [`Problems`] a place is in.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct FileId(usize);

/// A range of bytes in one file.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Place {
    /// The file.
    pub file: FileId,
    /// Bytes of the file.
    pub span: Range<usize>,
}

impl Place {
    pub(crate) fn new(file: FileId, span: Range<usize>) -> Self {
        Self { file, span }
    }
}

/// Whether a problem stops the start.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Severity {
    /// Nothing starts.
    Error,
    /// Worth a look; shown by `check` and at start-up.
    Warning,
}

/// One thing that is wrong, where, and what to do.
#[derive(Clone, PartialEq, Debug)]
pub struct Problem {
    /// Error or warning.
    pub severity: Severity,
    /// Where; `None` for a problem of the whole.
    pub place: Option<Place>,
    /// What is wrong: a lower-case fragment.
    pub message: String,
    /// What to do; may be empty.
    pub help: String,
}

/// All problems of a load, and the text of the files they stand in (secrets masked).
#[derive(Debug, Default)]
pub struct Problems {
    files: RefCell<Vec<(PathBuf, String)>>,
    found: RefCell<Vec<Problem>>,
    /// Every key that was asked for, so that a test can hold the documentation against it.
    #[cfg(test)]
    pub(crate) asked: RefCell<std::collections::BTreeSet<String>>,
}

impl Problems {
    pub(crate) fn add_file(&self, name: PathBuf, shown: String) -> FileId {
        let mut files = self.files.borrow_mut();
        files.push((name, shown));
        FileId(files.len() - 1)
    }
    /// Adds an error at a place. `help` says what to do, and may be empty.
    pub fn error(&self, place: &Place, message: impl Into<String>, help: impl Into<String>) {
        self.push(Severity::Error, Some(place.clone()), message.into(), help.into());
    }
    /// Adds a warning at a place.
    pub fn warn(&self, place: &Place, message: impl Into<String>, help: impl Into<String>) {
        self.push(Severity::Warning, Some(place.clone()), message.into(), help.into());
    }
    /// Adds an error that has no place, such as a file that cannot be read.
    pub fn error_anywhere(&self, message: impl Into<String>, help: impl Into<String>) {
        self.push(Severity::Error, None, message.into(), help.into());
    }
    fn push(&self, severity: Severity, place: Option<Place>, message: String, help: String) {
        let (message, help) = (one_line(message), one_line(help));
        self.found.borrow_mut().push(Problem { severity, place, message, help });
    }
    /// How many errors there are.
    pub fn errors(&self) -> usize {
        self.count(Severity::Error)
    }
    /// How many warnings there are.
    pub fn warnings(&self) -> usize {
        self.count(Severity::Warning)
    }
    fn count(&self, severity: Severity) -> usize {
        self.found.borrow().iter().filter(|p| p.severity == severity).count()
    }
    /// The problems, errors first, each group in the order of the files.
    pub fn sorted(&self) -> Vec<Problem> {
        let mut found = self.found.borrow().clone();
        found.sort_by_key(|p| (p.severity, p.place.as_ref().map(|at| (at.file, at.span.start))));
        found.dedup();
        found
    }
    /// `file:line:column` of a place.
    pub fn locate(&self, place: &Place) -> String {
        let (name, line, column) = self.position(place);
        format!("{}:{line}:{column}", name.display())
    }
    /// File, line and column of a place; line and column count from 1, columns in characters.
    pub fn position(&self, place: &Place) -> (PathBuf, usize, usize) {
        let files = self.files.borrow();
        let (name, text) = &files[place.file.0];
        let before = &text[..text.floor_char_boundary(place.span.start)];
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
        (name.clone(), line, column)
    }
    /// A key as messages may call it: beside a syntax error a secret may have become a key, and is masked there.
    pub(crate) fn shown_name<'n>(&self, place: &Place, name: &'n str) -> &'n str {
        let shows =
            self.files.borrow()[place.file.0].1.get(place.span.clone()).is_some_and(|shown| shown.contains(name));
        if shows { name } else { "…" }
    }
    /// All problems as text for people, with the source line of each.
    pub fn render(&self, color: bool) -> String {
        let renderer = if color { Renderer::styled() } else { Renderer::plain() };
        let files = self.files.borrow();
        let mut out = String::new();
        for problem in self.sorted() {
            let level = match problem.severity {
                Severity::Error => Level::ERROR,
                Severity::Warning => Level::WARNING,
            };
            let title = level.primary_title(problem.message.as_str());
            let name;
            let mut group = match &problem.place {
                None => Group::with_title(title),
                Some(place) => {
                    let (path, text) = &files[place.file.0];
                    name = path.display().to_string();
                    // One line is shown: a section that spans many is marked at its start.
                    let start = text.floor_char_boundary(place.span.start);
                    let line_end = text[start..].find('\n').map_or(text.len(), |i| start + i);
                    let span = start..text.ceil_char_boundary(place.span.end).clamp(start, line_end);
                    title.element(
                        Snippet::source(text.as_str())
                            .path(name.as_str())
                            .annotation(AnnotationKind::Primary.span(span)),
                    )
                }
            };
            if !problem.help.is_empty() {
                group = group.element(Level::HELP.message(problem.help.as_str()));
            }
            out.push_str(&renderer.render(&[group]));
            out.push_str("\n\n");
        }
        out
    }
}

/// A missing quote makes one value of many lines, secrets among them, and a message may quote a value: only its
/// first line is said. Longer than a page is no message either.
fn one_line(text: String) -> String {
    const CHARS_MAX: usize = 1000;
    match text.char_indices().enumerate().find(|(n, (_, c))| c.is_control() || *n == CHARS_MAX) {
        Some((_, (end, _))) => format!("{}…", &text[..end]),
        None => text,
    }
}
