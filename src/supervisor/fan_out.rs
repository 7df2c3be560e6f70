//! One target per address of a name: which address has which index, and what is held of it. Pure.

use std::collections::{BTreeMap, HashSet};
use std::hash::Hash;
use std::sync::Arc;

use crate::config::{Policy, ResolveTo, Target};
use crate::stats::{FanOut, Identity};

/// The addresses of a target by index; `None` is wherever its url points.
pub(super) type Addresses = BTreeMap<u32, Option<ResolveTo>>;

/// Gives each address an index: it keeps the one it has, and a new one is given the lowest that is
/// free.
pub(super) fn assign<A: Clone + Eq + Hash>(
    previous: &BTreeMap<u32, A>,
    now: &[A],
) -> BTreeMap<u32, A> {
    let mut new: HashSet<&A> = now.iter().collect();
    let kept = previous.iter().filter(|(_, address)| new.remove(address));
    let mut assigned: BTreeMap<u32, A> = kept.map(|(i, address)| (*i, address.clone())).collect();
    let mut index = 0;
    for address in now {
        if new.remove(address) {
            while assigned.contains_key(&index) {
                index += 1;
            }
            assigned.insert(index, address.clone());
        }
    }
    assigned
}

/// A target for each of `addresses`. What is equal to what there was `before` is shared with it.
/// A name that is `taken` by another target is varied.
pub(super) fn expand(
    target: &Target,
    addresses: &Addresses,
    before: &[Arc<Target>],
    taken: &HashSet<Arc<str>>,
) -> Vec<Arc<Target>> {
    let policy = Policy {
        fan_out: None,
        ..(*target.policy).clone()
    };
    let policy = match before.first() {
        Some(shared) if *shared.policy == policy => shared.policy.clone(),
        Some(_) | None => Arc::new(policy),
    };
    let before: BTreeMap<u32, &Arc<Target>> = before
        .iter()
        .filter_map(|target| Some((target.identity.address_index()?, target)))
        .collect();
    let one = |(index, address): (&u32, &Option<ResolveTo>)| {
        let before = before.get(index);
        let connection = match address {
            None => target.connection.clone(),
            Some(address) => {
                let mut connection = (*target.connection).clone();
                connection.address.resolve = vec![address.clone()];
                match before {
                    Some(before) if *before.connection == connection => before.connection.clone(),
                    Some(_) | None => Arc::new(connection),
                }
            }
        };
        let expanded = Target {
            identity: Arc::new(identity(&target.identity, *index, address.as_ref(), taken)),
            url: target.url.clone(),
            connection,
            policy: policy.clone(),
        };
        match before {
            Some(before) if ***before == expanded => (*before).clone(),
            Some(_) | None => Arc::new(expanded),
        }
    };
    addresses.iter().map(one).collect()
}

fn identity(
    of: &Identity,
    index: u32,
    address: Option<&ResolveTo>,
    taken: &HashSet<Arc<str>>,
) -> Identity {
    let mut name = format!("{}[{index}]", of.name);
    while taken.contains(name.as_str()) {
        name.push('\'');
    }
    let fan_out = FanOut {
        target: of.name.clone(),
        index,
        address: match address {
            Some(ResolveTo::Ip { ip, .. }) => Some(*ip),
            Some(ResolveTo::Unix(_)) | None => None,
        },
    };
    Identity {
        name: name.into(),
        fan_out: Some(Box::new(fan_out)),
        ..of.clone()
    }
}

/// Whether two targets of a name are two addresses, of which one took the other's index. That is
/// the end of one connection and the begin of another, and no replacement: the numbers of the one
/// say nothing of the other.
pub(super) fn is_another_address(one: &Target, other: &Target) -> bool {
    let fixed = |target: &Target| {
        target.identity.fan_out.is_some() && !target.connection.address.resolve.is_empty()
    };
    let resolve = |target: &Target| target.connection.address.resolve.clone();
    fixed(one) && fixed(other) && resolve(one) != resolve(other)
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use proptest::prelude::*;

    use super::super::plan::tests::target;
    use super::*;

    fn at(last: u8) -> Option<ResolveTo> {
        Some(ResolveTo::Ip {
            ip: IpAddr::V4(Ipv4Addr::new(10, 0, 0, last)),
            zone: None,
            port: None,
        })
    }

    fn fanning_out() -> Arc<Target> {
        let mut target = (*target("edge", 0, 10, 0)).clone();
        Arc::make_mut(&mut target.policy).fan_out = Some(std::time::Duration::from_secs(30));
        Arc::new(target)
    }

    #[test]
    fn an_index_is_kept_and_the_lowest_free_one_is_given_next() {
        let first = assign(&BTreeMap::new(), &['a', 'b', 'c', 'b']);
        assert_eq!(first, BTreeMap::from([(0, 'a'), (1, 'b'), (2, 'c')]));
        let second = assign(&first, &['d', 'c', 'e', 'a']);
        let expected = BTreeMap::from([(0, 'a'), (1, 'd'), (2, 'c'), (3, 'e')]);
        assert_eq!(second, expected);
        assert_eq!(assign(&second, &['e']), BTreeMap::from([(3, 'e')]));
    }

    proptest! {
        #[test]
        fn each_address_has_one_index_and_keeps_it(
            rounds in prop::collection::vec(prop::collection::vec(0_u8..20, 0..20), 1..20),
        ) {
            let mut held = BTreeMap::new();
            for now in rounds {
                let next = assign(&held, &now);
                let wanted: HashSet<u8> = now.iter().copied().collect();
                let has: HashSet<u8> = next.values().copied().collect();
                prop_assert_eq!(&has, &wanted);
                prop_assert_eq!(next.len(), wanted.len());
                for (index, address) in held.iter().filter(|(_, a)| wanted.contains(a)) {
                    prop_assert_eq!(next.get(index), Some(address));
                }
                // No free index is left below one that was given now.
                let given = next.iter().filter(|(index, a)| held.get(index) != Some(a));
                if let Some((highest, _)) = given.max() {
                    prop_assert!((0..*highest).all(|index| next.contains_key(&index)));
                }
                held = next;
            }
        }
    }

    #[test]
    fn each_address_is_a_target_that_differs_in_address_and_index_alone() {
        let target = fanning_out();
        let addresses = Addresses::from([(0, at(1)), (4, at(2))]);
        let expanded = expand(&target, &addresses, &[], &HashSet::new());
        let names: Vec<_> = expanded.iter().map(|t| &*t.identity.name).collect();
        assert_eq!(names, ["edge[0]", "edge[4]"]);
        for (one, address) in expanded.iter().zip([at(1), at(2)]) {
            assert_eq!(&**one.identity.target(), "edge");
            let mut back = (**one).clone();
            assert_eq!(back.connection.address.resolve, Vec::from_iter(address));
            Arc::make_mut(&mut back.connection).address.resolve.clear();
            Arc::make_mut(&mut back.policy).fan_out = target.policy.fan_out;
            back.identity = target.identity.clone();
            assert_eq!(back, *target);
        }
        assert_eq!(expanded[1].identity.address_index(), Some(4));
        assert!(Arc::ptr_eq(&expanded[0].policy, &expanded[1].policy));
        assert!(is_another_address(&expanded[0], &expanded[1]));
    }

    #[test]
    fn without_an_address_the_url_says_where() {
        let target = fanning_out();
        let addresses = Addresses::from([(0, None)]);
        let expanded = expand(&target, &addresses, &[], &HashSet::new());
        assert!(Arc::ptr_eq(&expanded[0].connection, &target.connection));
        assert_eq!(expanded[0].policy.fan_out, None);
        // Once it is known where, the connection is another, but no other address.
        let known = expand(
            &target,
            &Addresses::from([(0, at(1))]),
            &expanded,
            &HashSet::new(),
        );
        assert!(!expanded[0].same_connection(&known[0]));
        assert!(!is_another_address(&expanded[0], &known[0]));
    }

    #[test]
    fn what_did_not_change_is_shared() {
        let target = fanning_out();
        let before = Addresses::from([(0, at(1)), (1, at(2))]);
        let before = expand(&target, &before, &[], &HashSet::new());
        let after = Addresses::from([(0, at(1)), (1, at(3)), (2, at(2))]);
        let after = expand(&target, &after, &before, &HashSet::new());
        assert!(Arc::ptr_eq(&before[0], &after[0]));
        assert!(Arc::ptr_eq(&before[0].policy, &after[2].policy));

        let mut relabelled = (*target).clone();
        Arc::make_mut(&mut relabelled.identity).labels = [].into();
        let addresses = Addresses::from([(0, at(1))]);
        let relabelled = expand(&relabelled, &addresses, &before, &HashSet::new());
        assert_ne!(relabelled[0], before[0]);
        assert!(Arc::ptr_eq(
            &relabelled[0].connection,
            &before[0].connection
        ));
    }

    #[test]
    fn a_name_that_another_target_has_is_not_taken_from_it() {
        let taken = HashSet::from(["edge[0]".into(), "edge[0]'".into()]);
        let addresses = Addresses::from([(0, at(1)), (1, at(2))]);
        let expanded = expand(&fanning_out(), &addresses, &[], &taken);
        let names: Vec<_> = expanded.iter().map(|t| &*t.identity.name).collect();
        assert_eq!(names, ["edge[0]''", "edge[1]"]);
    }
}
