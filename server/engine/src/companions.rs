//! What a backend gives a version beside its model: front doors find it by its type, and it lives as long as somebody
//! knows the version.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

/// Cheap to clone; all clones have the same companions.
#[derive(Clone, Default)]
pub struct Companions(Vec<Arc<dyn Any + Send + Sync>>);

// === impl Companions ===

impl Companions {
    #[must_use]
    pub fn with(mut self, companion: Arc<dyn Any + Send + Sync>) -> Companions {
        self.0.push(companion);
        self
    }

    /// The first of type `T`.
    pub fn get<T: Any>(&self) -> Option<&T> {
        self.0.iter().find_map(|companion| companion.downcast_ref())
    }
}

/// How many there are: what they are only their owners know.
impl fmt::Debug for Companions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Companions").field(&self.0.len()).finish()
    }
}

/// The very same ones.
impl PartialEq for Companions {
    fn eq(&self, other: &Companions) -> bool {
        self.0.len() == other.0.len() && self.0.iter().zip(&other.0).all(|(a, b)| Arc::ptr_eq(a, b))
    }
}

impl Eq for Companions {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn companions_are_found_by_their_type() {
        let companions = Companions::default().with(Arc::new("text")).with(Arc::new(7_u8));
        assert_eq!((companions.get::<u8>(), companions.get::<&str>()), (Some(&7), Some(&"text")));
        assert_eq!(companions.get::<u16>(), None);
        assert_eq!(companions, companions.clone());
        assert_ne!(companions, Companions::default());
    }
}
