//! Values that upper layers derive from a snapshot: one per type, computed once.

use std::any::{Any, TypeId};
use std::fmt;
use std::sync::OnceLock;

/// Values by type. A stored value never moves or changes, so that it can be borrowed for the lifetime of the snapshot.
/// The computation of a value may use other values.
#[derive(Default)]
pub(crate) struct Derived {
    first: OnceLock<Box<Slot>>,
}

struct Slot {
    of: TypeId,
    value: OnceLock<Box<dyn Any + Send + Sync>>,
    next: OnceLock<Box<Slot>>,
}

impl Derived {
    /// The value of a type, computed on the first call. Concurrent callers wait for the result.
    pub(crate) fn get_or_init<T: Any + Send + Sync>(&self, compute: impl FnOnce() -> T) -> &T {
        let value = self.slot(TypeId::of::<T>()).get_or_init(|| Box::new(compute()));
        value.downcast_ref().expect("a slot holds a value of the type that it is for")
    }

    fn slot(&self, of: TypeId) -> &OnceLock<Box<dyn Any + Send + Sync>> {
        let mut link = &self.first;
        loop {
            let slot = link.get_or_init(|| Box::new(Slot { of, value: OnceLock::new(), next: OnceLock::new() }));
            if slot.of == of {
                return &slot.value;
            }
            link = &slot.next;
        }
    }
}

impl fmt::Debug for Derived {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Derived").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::Derived;

    #[test]
    fn each_type_has_one_value_and_may_need_another() {
        let derived = Derived::default();
        let text = derived.get_or_init(|| derived.get_or_init(|| 7_u32).to_string());
        assert_eq!(text, "7");
        assert_eq!(derived.get_or_init(|| 8_u32), &7);
        assert_eq!(derived.get_or_init(String::new), "7");
    }
}
