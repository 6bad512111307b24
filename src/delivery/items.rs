//! Items of a body that its provider re-sends apart (`items`): which of them an upstream already has.

use std::sync::Arc;

use crate::{
    event::Item,
    store::{EventStore, StoreError},
};

/// Reads the items of a body, in their order: `None` for one whose key cannot be read. Nothing at all if the body
/// has no such list.
pub type Extract = Arc<dyn Fn(&[u8]) -> Vec<Option<Item>> + Send + Sync>;

/// What an upstream already knows of a body's items.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Marks {
    /// All items with a key: recorded once the upstream has taken them.
    pub items: Vec<Item>,
    /// Indexes of those that it acknowledged with equal content.
    pub duplicate: Vec<usize>,
    /// Indexes of those that it acknowledged with other content.
    pub changed: Vec<usize>,
}

/// Compares the items of a body with what the upstream acknowledged.
pub async fn compare(
    store: &dyn EventStore,
    upstream: &str,
    extracted: Vec<Option<Item>>,
) -> Result<Marks, StoreError> {
    let (indexes, items): (Vec<usize>, Vec<Item>) =
        extracted.into_iter().enumerate().filter_map(|(index, item)| Some((index, item?))).unzip();
    if items.is_empty() {
        return Ok(Marks::default());
    }
    let known = store.acknowledged_items(upstream, items.clone()).await?;
    let (mut duplicate, mut changed) = (Vec::new(), Vec::new());
    for ((index, item), known) in indexes.into_iter().zip(&items).zip(known) {
        match known {
            Some(content) if content == item.content => duplicate.push(index),
            Some(_) => changed.push(index),
            None => {}
        }
    }
    Ok(Marks { items, duplicate, changed })
}
