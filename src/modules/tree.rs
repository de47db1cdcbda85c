//! YAML as a tree in which every value knows where it stands.
//!
//! What is read has bounds: how long it is, how deep, and how many values it comes to once aliases are replaced by
//! what they stand for. Nothing here knows what a module is.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, StrInput, Tag};

use super::error::{Mistake, ModuleError, Place};
use super::placeholders::Placeholders;

/// How many bytes a file may have.
pub(super) const BYTES_MAX: usize = 1 << 20;
/// How many lists and mappings may be in one another.
pub(super) const DEPTH_MAX: usize = 64;
/// How many values there may be.
pub(super) const NODES_MAX: usize = 50_000;
/// How many bytes texts may have that placeholders were put into, all together.
pub(super) const FILLED_MAX: usize = 16 << 20;

/// A value of a module, with the place where it stands: what a [connector](super::Connectors) reads.
///
/// Texts, numbers and durations are written alike, with or without quotes, as StateFun reads them; what is read
/// decides. Each reader says what is wrong, and where.
#[derive(Clone)]
pub struct Node {
    pub(super) place: Place,
    what: What,
    pub(super) content: Content,
    /// How many lists and mappings are in one another, itself among them.
    height: usize,
    /// How many values it has, itself among them.
    weight: usize,
}

#[derive(Clone)]
pub(super) enum Content {
    Nothing,
    Text(Text),
    List(Vec<Node>),
    Map(Vec<(Key, Node)>),
}

/// A text, and how it is written in the file.
#[derive(Clone)]
pub(super) struct Text {
    pub(super) filled: Arc<str>,
    pub(super) written: Arc<str>,
}

/// A key of a mapping.
#[derive(Clone)]
pub(super) struct Key {
    pub(super) text: Arc<str>,
    pub(super) place: Place,
}

/// What a value is for.
#[derive(Clone)]
enum What {
    Document,
    Field(Arc<str>),
    Item(Arc<str>),
}

impl Node {
    fn new(place: Place, what: What, content: Content) -> Self {
        let (height, weight) = match &content {
            Content::Nothing | Content::Text(_) => (0, 1),
            Content::List(items) => measured(items.iter()),
            Content::Map(entries) => measured(entries.iter().map(|(_, node)| node)),
        };
        Node { place, what, content, height, weight }
    }

    /// A mapping with one more field.
    pub(super) fn with_field(mut self, name: &str, node: Node) -> Self {
        if let Content::Map(entries) = &mut self.content {
            entries.push((Key { text: name.into(), place: node.place.clone() }, node));
        }
        self
    }

    /// What the value is for, as messages say it.
    pub(super) fn what(&self) -> String {
        match &self.what {
            What::Document => "a document".to_owned(),
            What::Field(name) => format!("\"{name}\""),
            What::Item(name) => format!("an item of \"{name}\""),
        }
    }

    /// What it is.
    pub(super) fn found(&self) -> &'static str {
        match self.content {
            Content::Nothing => "nothing",
            Content::Text(_) => "a text or number",
            Content::List(_) => "a list",
            Content::Map(_) => "a mapping",
        }
    }

    pub(super) fn mistake(&self, mistake: Mistake) -> ModuleError {
        ModuleError::new(&self.place, mistake)
    }
}

/// Height and weight of what has these in it.
fn measured<'a>(nodes: impl Iterator<Item = &'a Node>) -> (usize, usize) {
    let all = nodes
        .fold((0, 0), |(height, weight), node| (node.height.max(height), node.weight + weight));
    (all.0 + 1, all.1 + 1)
}

/// Shows what is written, and not what was put in for placeholders.
impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.content {
            Content::Nothing => f.write_str("null"),
            Content::Text(text) => fmt::Debug::fmt(&text.written, f),
            Content::List(items) => f.debug_list().entries(items).finish(),
            Content::Map(entries) => {
                f.debug_map().entries(entries.iter().map(|(key, node)| (&key.text, node))).finish()
            }
        }
    }
}

/// The documents of a file, without those that have nothing in them.
pub(super) fn documents(
    file: &str,
    text: &str,
    placeholders: &Placeholders,
) -> Result<Vec<Node>, ModuleError> {
    let file: Arc<str> = file.into();
    if text.len() > BYTES_MAX {
        let place = Place { file, line: 0, column: 0 };
        return Err(ModuleError::new(&place, Mistake::TooLarge { max: BYTES_MAX }));
    }
    let mut growing = Growing {
        file,
        placeholders,
        documents: Vec::new(),
        open: Vec::new(),
        anchors: HashMap::new(),
        nodes: 0,
        filled: 0,
    };
    let mut parser: Parser<'_, StrInput<'_>> = Parser::new_from_str(text);
    while let Some(event) = parser.next_event() {
        match event {
            Ok((event, span)) => growing.take(event, span.start)?,
            Err(error) => {
                let why = error.info().to_owned();
                return Err(growing.mistake(*error.marker(), Mistake::Syntax { why }));
            }
        }
    }
    Ok(growing.documents)
}

/// Documents that are being read.
struct Growing<'a> {
    file: Arc<str>,
    placeholders: &'a Placeholders,
    documents: Vec<Node>,
    /// Lists and mappings that are not complete, each in the one before it.
    open: Vec<Open>,
    /// What is complete in this document and has a number by which aliases name it.
    anchors: HashMap<usize, Node>,
    nodes: usize,
    filled: usize,
}

/// A list or mapping that is not complete.
struct Open {
    place: Place,
    what: What,
    anchor: usize,
    content: OpenContent,
}

enum OpenContent {
    List(Vec<Node>),
    Map {
        entries: Vec<(Key, Node)>,
        /// In which lines its keys are.
        lines: HashMap<Arc<str>, usize>,
        /// The key whose value comes next.
        key: Option<Key>,
        /// Whether its value is what `<<` adds.
        merges: bool,
        merged: Option<Box<Node>>,
    },
}

impl OpenContent {
    fn map() -> Self {
        let (entries, lines) = (Vec::new(), HashMap::new());
        OpenContent::Map { entries, lines, key: None, merges: false, merged: None }
    }
}

/// What adds the fields of other mappings to one.
const MERGE: &str = "<<";

impl Growing<'_> {
    fn take(&mut self, event: Event<'_>, at: Marker) -> Result<(), ModuleError> {
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                self.check_tag(at, tag.as_deref())?;
                let plain = style == ScalarStyle::Plain && tag.is_none();
                let content = match &*text {
                    "" | "~" | "null" | "Null" | "NULL" if plain => Content::Nothing,
                    text => Content::Text(self.text(at, text)?),
                };
                let what = self.what();
                let node = Node::new(self.place(at), what, content);
                self.count(at, 1)?;
                self.complete(node, anchor, plain)
            }
            Event::Alias(anchor) => {
                let known = self.anchors.get(&anchor);
                let known = known.ok_or_else(|| self.mistake(at, Mistake::UnknownAlias))?;
                // Before it is cloned: aliases of aliases can stand for more than there is memory.
                let (weight, height) = (known.weight, known.height);
                self.count(at, weight)?;
                self.check_depth(at, height)?;
                let what = self.what();
                let node = Node { what, ..self.anchors[&anchor].clone() };
                self.complete(node, 0, false)
            }
            Event::SequenceStart(anchor, tag) => {
                self.check_tag(at, tag.as_deref())?;
                self.open(at, anchor, OpenContent::List(Vec::new()))
            }
            Event::MappingStart(anchor, tag) => {
                self.check_tag(at, tag.as_deref())?;
                self.open(at, anchor, OpenContent::map())
            }
            Event::SequenceEnd | Event::MappingEnd => {
                let open = self.open.pop().expect("the parser ends what it has begun");
                let content = match open.content {
                    OpenContent::List(items) => Content::List(items),
                    OpenContent::Map { entries, lines, merged, .. } => {
                        Content::Map(self.merge(entries, lines, merged)?)
                    }
                };
                self.complete(Node::new(open.place, open.what, content), open.anchor, false)
            }
            Event::DocumentEnd => {
                self.anchors.clear();
                Ok(())
            }
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentStart(_) => {
                Ok(())
            }
        }
    }

    fn open(&mut self, at: Marker, anchor: usize, content: OpenContent) -> Result<(), ModuleError> {
        self.count(at, 1)?;
        self.check_depth(at, 1)?;
        let (place, what) = (self.place(at), self.what());
        self.open.push(Open { place, what, anchor, content });
        Ok(())
    }

    /// Puts a value where it belongs.
    fn complete(&mut self, node: Node, anchor: usize, plain: bool) -> Result<(), ModuleError> {
        if anchor > 0 {
            self.anchors.insert(anchor, node.clone());
        }
        let Some(open) = self.open.last_mut() else {
            if !matches!(node.content, Content::Nothing) {
                self.documents.push(node);
            }
            return Ok(());
        };
        match &mut open.content {
            OpenContent::List(items) => items.push(node),
            OpenContent::Map { entries, lines, key, merges, merged } => match key.take() {
                None => {
                    let found = node.found();
                    let Content::Text(text) = node.content else {
                        return Err(ModuleError::new(&node.place, Mistake::NotAKey { found }));
                    };
                    // As it is written: placeholders are for values.
                    let text = text.written;
                    if let Some(first_line) = lines.insert(Arc::clone(&text), node.place.line) {
                        let mistake = Mistake::DuplicateKey { key: text.to_string(), first_line };
                        return Err(ModuleError::new(&node.place, mistake));
                    }
                    // In quotes, it is a key like any other.
                    *merges = plain && &*text == MERGE;
                    *key = Some(Key { text, place: node.place });
                }
                Some(_) if *merges => *merged = Some(Box::new(node)),
                Some(key) => entries.push((key, node)),
            },
        }
        Ok(())
    }

    /// The entries of a mapping, with those that `<<` adds: what is there itself comes first, and then what is named
    /// first.
    fn merge(
        &self,
        mut entries: Vec<(Key, Node)>,
        mut lines: HashMap<Arc<str>, usize>,
        merged: Option<Box<Node>>,
    ) -> Result<Vec<(Key, Node)>, ModuleError> {
        let maps = match merged.map(|node| *node) {
            None => Vec::new(),
            Some(Node { content: Content::List(items), .. }) => items,
            Some(node) => vec![node],
        };
        for map in maps {
            let found = map.found();
            let Content::Map(others) = map.content else {
                return Err(ModuleError::new(&map.place, Mistake::NotMergeable { found }));
            };
            for (key, node) in others {
                if lines.insert(Arc::clone(&key.text), key.place.line).is_none() {
                    entries.push((key, node));
                }
            }
        }
        Ok(entries)
    }

    /// What comes next is for.
    fn what(&self) -> What {
        match self.open.last() {
            None => What::Document,
            Some(Open { content: OpenContent::Map { key: Some(key), .. }, .. }) => {
                What::Field(Arc::clone(&key.text))
            }
            Some(Open { what: What::Field(name) | What::Item(name), .. }) => {
                What::Item(Arc::clone(name))
            }
            Some(Open { what: What::Document, .. }) => What::Document,
        }
    }

    fn text(&mut self, at: Marker, text: &str) -> Result<Text, ModuleError> {
        let written: Arc<str> = text.into();
        let is_key = matches!(
            self.open.last(),
            Some(Open { content: OpenContent::Map { key: None, .. }, .. })
        );
        if is_key {
            return Ok(Text { filled: Arc::clone(&written), written });
        }
        let filled = self.placeholders.fill(text, FILLED_MAX - self.filled);
        let filled = match filled.map_err(|mistake| self.mistake(at, mistake))? {
            None => Arc::clone(&written),
            Some(filled) => {
                self.filled += filled.len();
                filled.into()
            }
        };
        if self.filled > FILLED_MAX {
            return Err(self.mistake(at, Mistake::TooLong { max: FILLED_MAX }));
        }
        Ok(Text { filled, written })
    }

    fn count(&mut self, at: Marker, nodes: usize) -> Result<(), ModuleError> {
        self.nodes += nodes;
        match self.nodes > NODES_MAX {
            true => Err(self.mistake(at, Mistake::TooMany { max: NODES_MAX })),
            false => Ok(()),
        }
    }

    fn check_depth(&self, at: Marker, height: usize) -> Result<(), ModuleError> {
        match self.open.len() + height > DEPTH_MAX {
            true => Err(self.mistake(at, Mistake::TooDeep { max: DEPTH_MAX })),
            false => Ok(()),
        }
    }

    fn check_tag(&self, at: Marker, tag: Option<&Tag>) -> Result<(), ModuleError> {
        const CORE: [&str; 7] = ["str", "int", "float", "bool", "null", "seq", "map"];
        match tag {
            Some(tag) if !(tag.is_yaml_core_schema() && CORE.contains(&&*tag.suffix)) => {
                Err(self.mistake(at, Mistake::UnknownTag { tag: tag.to_string() }))
            }
            _ => Ok(()),
        }
    }

    fn place(&self, at: Marker) -> Place {
        Place { file: Arc::clone(&self.file), line: at.line(), column: at.col() + 1 }
    }

    fn mistake(&self, at: Marker, mistake: Mistake) -> ModuleError {
        ModuleError::new(&self.place(at), mistake)
    }
}
