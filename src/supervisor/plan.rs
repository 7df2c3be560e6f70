//! What has to change, so that what runs becomes what is wanted. Pure.

use std::collections::HashMap;
use std::sync::Arc;

use super::fan_out::is_another_address;
use crate::config::Target;

/// The difference between the targets that run and the targets wanted, by name.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// Names that are new, or another address than the one that stops.
    pub(super) start: Vec<Arc<Target>>,
    /// Names that are gone, or start again as another address; before all else.
    pub(super) stop: Vec<Arc<str>>,
    /// Names whose connection is another: the old one ends before the new one is dialled.
    pub(super) replace: Vec<Arc<Target>>,
    /// Names whose connection stands and is kept in another way.
    pub(super) retune: Vec<Arc<Target>>,
    /// How many did not change.
    pub(super) kept: usize,
}

/// Compares by name; names are unique in each of the slices. The lists keep the order of the
/// slice they come from.
pub(super) fn plan(desired: &[Arc<Target>], running: &[Arc<Target>]) -> Plan {
    let mut old: HashMap<&str, &Arc<Target>> = by_name(running);
    let mut plan = Plan::default();
    for target in desired {
        let name = &*target.identity.name;
        match old.remove(name) {
            None => plan.start.push(target.clone()),
            Some(before) if is_another_address(before, target) => {
                // Stopped by what is left of the old, and started anew.
                old.insert(name, before);
                plan.start.push(target.clone());
            }
            Some(before) if !before.same_connection(target) => plan.replace.push(target.clone()),
            Some(before) if before != target => plan.retune.push(target.clone()),
            Some(_) => plan.kept += 1,
        }
    }
    plan.stop = running
        .iter()
        .map(|target| &target.identity.name)
        .filter(|name| old.contains_key(&***name))
        .cloned()
        .collect();
    plan
}

fn by_name(targets: &[Arc<Target>]) -> HashMap<&str, &Arc<Target>> {
    targets.iter().map(|t| (&*t.identity.name, t)).collect()
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::config::{ConnectionOptions, Policy, Secret};
    use crate::stats::Identity;

    /// A target whose url, close timeout and label are chosen by small numbers.
    pub(in crate::supervisor) fn target(
        name: &str,
        url: u8,
        close_secs: u64,
        label: u8,
    ) -> Arc<Target> {
        let mut policy = Policy::default();
        policy.timeouts.close = Duration::from_secs(close_secs);
        let url = format!("ws://localhost:1/{url}");
        Arc::new(Target {
            identity: Arc::new(Identity {
                name: name.into(),
                url: url.as_str().into(),
                protocol: crate::stats::Protocol::WebSocket,
                server_beats: false,
                watches_staleness: false,
                labels: [("shade".into(), label.to_string().into())].into(),
                fan_out: None,
            }),
            url: Secret::new(url.into()),
            connection: Arc::new(ConnectionOptions::default()),
            policy: Arc::new(policy),
        })
    }

    fn names(targets: &[Arc<Target>]) -> Vec<&str> {
        targets.iter().map(|t| &*t.identity.name).collect()
    }

    #[test]
    fn each_kind_of_change_has_its_list() {
        let kept = target("kept", 0, 10, 0);
        let running = [
            target("gone", 0, 10, 0),
            kept.clone(),
            target("relabelled", 0, 10, 0),
            target("retimed", 0, 10, 0),
            target("moved", 0, 10, 0),
            target("moved-and-relabelled", 0, 10, 0),
        ];
        let mut authorized = (*target("authorized", 0, 10, 0)).clone();
        let before = Arc::new(authorized.clone());
        authorized.connection = Arc::new(ConnectionOptions {
            subprotocols: vec!["v2.chat".into()],
            ..ConnectionOptions::default()
        });
        let running = [&running[..], &[before]].concat();
        let desired = [
            target("new", 0, 10, 0),
            target("moved-and-relabelled", 1, 10, 1),
            target("moved", 1, 10, 0),
            target("retimed", 0, 11, 0),
            target("relabelled", 0, 10, 1),
            // Equal, though another allocation.
            target("kept", 0, 10, 0),
            Arc::new(authorized),
        ];
        let plan = plan(&desired, &running);
        assert_eq!(names(&plan.start), ["new"]);
        assert_eq!(plan.stop, ["gone".into()]);
        let replaced = ["moved-and-relabelled", "moved", "authorized"];
        assert_eq!(names(&plan.replace), replaced);
        assert_eq!(names(&plan.retune), ["retimed", "relabelled"]);
        assert_eq!(plan.kept, 1);
    }

    #[test]
    fn an_equal_configuration_changes_nothing() {
        let running = [target("a", 0, 1, 0), target("b", 1, 1, 0)];
        let desired = [target("b", 1, 1, 0), target("a", 0, 1, 0)];
        let expected = Plan {
            kept: 2,
            ..Plan::default()
        };
        assert_eq!(plan(&desired, &running), expected);
    }

    fn targets() -> impl Strategy<Value = Vec<Arc<Target>>> {
        let one = (0..12_u8, 0..3_u8, 1..3_u64, 0..2_u8);
        prop::collection::vec(one, 0..12).prop_map(|rows| {
            let mut unique = BTreeMap::new();
            for (name, url, close, label) in rows {
                unique.insert(name, target(&format!("t{name}"), url, close, label));
            }
            unique.into_values().collect()
        })
    }

    type ByName = BTreeMap<Arc<str>, Arc<Target>>;

    fn map(targets: &[Arc<Target>]) -> ByName {
        let pair = |t: &Arc<Target>| (t.identity.name.clone(), t.clone());
        targets.iter().map(pair).collect()
    }

    proptest! {
        #[test]
        fn applied_to_what_runs_it_gives_what_is_wanted(
            running in targets(),
            desired in targets(),
        ) {
            let plan = plan(&desired, &running);
            let mut applied = map(&running);
            for name in &plan.stop {
                prop_assert!(applied.remove(name).is_some());
            }
            for target in &plan.start {
                prop_assert!(applied.insert(target.identity.name.clone(), target.clone()).is_none());
            }
            for target in plan.replace.iter().chain(&plan.retune) {
                prop_assert!(applied.insert(target.identity.name.clone(), target.clone()).is_some());
            }
            prop_assert_eq!(&applied, &map(&desired));

            // What did not change was not touched, and a retuned connection may stand.
            let before = map(&running);
            let untouched = desired.iter().filter(|t| before.get(&t.identity.name) == Some(t));
            prop_assert_eq!(untouched.count(), plan.kept);
            for target in &plan.retune {
                prop_assert!(before[&target.identity.name].same_connection(target));
            }
            for target in &plan.replace {
                prop_assert!(!before[&target.identity.name].same_connection(target));
            }
            let touched = plan.start.len() + plan.replace.len() + plan.retune.len();
            prop_assert_eq!(touched + plan.kept, desired.len());
        }
    }
}
