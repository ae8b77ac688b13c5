//! What holds of every authority.

use super::{
    Action, Authority, Binding, Block, EveryLane, Everything, InEnvironment, Lane, Narrowing, Place,
    Principal, Promote, Pull, Push, Rank, Role,
};
use crate::names::{EnvironmentName, RepositoryName};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

const REPOSITORIES: [&str; 4] = ["a", "team/app", "team/db", "other/app"];
const ENVIRONMENTS: [&str; 3] = ["dev", "staging", "prod"];

fn binding() -> impl Strategy<Value = Binding> {
    let patterns = select(vec!["**", "team/*", "team/app", "other/**", "{a,team/db}"]);
    let environments = proptest::option::of(proptest::collection::btree_set(select(&ENVIRONMENTS[..]), 0..3));
    (select(&Role::ALL[..]), patterns, environments).prop_map(|(role, pattern, environments)| Binding {
        role,
        repositories: pattern.parse().unwrap(),
        environments: environments.map(|names| names.iter().map(|name| name.parse().unwrap()).collect()),
    })
}

fn authority(bindings: Vec<Binding>) -> Authority {
    Authority::new(Principal { id: 1, name: "ci".into() }, bindings)
}

/// Every question that can be asked about these names.
fn questions<T>(ask: impl Fn(Action, Place<'_>) -> T) -> Vec<T> {
    let repositories: Vec<RepositoryName> = REPOSITORIES.iter().map(|name| name.parse().unwrap()).collect();
    let names: Vec<EnvironmentName> = ENVIRONMENTS.iter().map(|name| name.parse().unwrap()).collect();
    let ones = names.iter().map(InEnvironment::One);
    let environments: Vec<InEnvironment<'_>> =
        ones.chain([InEnvironment::Regardless, InEnvironment::Any, InEnvironment::All]).collect();
    let mut answers = Vec::new();
    for action in Action::ALL {
        for repository in repositories.iter().map(Some).chain([None]) {
            for environment in &environments {
                answers.push(ask(action, Place { repository, environment: *environment }));
            }
        }
    }
    answers
}

proptest! {
    #[test]
    fn a_right_in_some_environments_is_none_outside_of_them(mut bindings in vec(binding(), 0..5)) {
        for binding in &mut bindings {
            binding.environments = Some(["prod".parse().unwrap()].into());
        }
        let limited = authority(bindings);
        let prod: EnvironmentName = "prod".parse().unwrap();
        let right = |place: Place<'_>| match place.environment {
            InEnvironment::One(name) => *name == prod,
            InEnvironment::Any => true,
            InEnvironment::Regardless | InEnvironment::All => false,
        };
        prop_assert!(questions(|action, place| !limited.allows(action, place) || right(place)).iter().all(|yes| *yes));
        for name in REPOSITORIES {
            let name: RepositoryName = name.parse().unwrap();
            prop_assert!(!limited.lists(&name));
            prop_assert!(limited.may::<Pull, _>(&name).is_err() && limited.may::<Push, _>(&name).is_err());
        }
    }

    #[test]
    fn another_right_takes_nothing_away(mut bindings in vec(binding(), 0..4), more in binding()) {
        let before = questions(|action, place| authority(bindings.clone()).allows(action, place));
        bindings.push(more);
        let after = authority(bindings);
        for (before, after) in before.into_iter().zip(questions(|action, place| after.allows(action, place))) {
            prop_assert!(!before || after);
        }
    }

    #[test]
    fn a_narrowed_authority_may_nothing_that_the_whole_one_may_not(
        bindings in vec(binding(), 0..4),
        repositories in vec((select(&REPOSITORIES[..]), vec(select(&Action::ALL[..]), 0..3)), 0..3),
        views in vec((select(&REPOSITORIES[..]), select(&ENVIRONMENTS[..])), 0..3),
    ) {
        let whole = authority(bindings);
        let narrowed = whole.narrowed(Narrowing {
            repositories: repositories.iter().map(|(name, actions)| (name.parse().unwrap(), actions.clone())).collect(),
            views: views.iter().map(|(repository, environment)| Lane {
                repository: repository.parse().unwrap(), environment: environment.parse().unwrap() }).collect(),
            catalog: true,
        });
        let both = questions(|action, place| (narrowed.allows(action, place), whole.allows(action, place)));
        prop_assert!(both.iter().all(|(narrowed, whole)| !narrowed || *whole));
    }

    #[test]
    fn a_runner_views_and_does_nothing_else(mut bindings in vec(binding(), 1..4)) {
        for binding in &mut bindings {
            binding.role = Role::Runner;
        }
        let runner = authority(bindings);
        let only = questions(|action, place| !runner.allows(action, place) || action == Action::View);
        prop_assert!(only.iter().all(|yes| *yes));
        prop_assert!(REPOSITORIES.iter().all(|name| !runner.lists(&name.parse().unwrap())));
    }

    #[test]
    fn who_may_pull_may_view_and_a_refusal_is_seen_by_who_views_somewhere(bindings in vec(binding(), 0..4)) {
        let some = authority(bindings);
        let views = questions(|_, place| !some.allows(Action::Pull, place) || some.allows(Action::View, place));
        prop_assert!(views.iter().all(|yes| *yes));
        for (name, environment) in REPOSITORIES.iter().zip(ENVIRONMENTS.iter().cycle()) {
            let lane = Lane { repository: name.parse().unwrap(), environment: environment.parse().unwrap() };
            let anywhere = Place { repository: Some(&lane.repository), environment: InEnvironment::Any };
            if let Err(denied) = some.may::<Promote, _>(&lane) {
                prop_assert_eq!(denied.visible, some.allows(Action::View, anywhere));
            }
        }
    }

    #[test]
    fn a_block_reaches_where_its_author_could_have_placed_it_and_has_their_highest_rank_there(
        bindings in vec(binding(), 0..5),
        name in select(&REPOSITORIES[..]),
        environment in proptest::option::of(select(&ENVIRONMENTS[..])),
    ) {
        let author = authority(bindings.clone());
        let lane = |name: &str| Lane {
            repository: name.parse().unwrap(), environment: environment.unwrap_or("dev").parse().unwrap() };
        let granted = |name: &str| match environment {
            Some(_) => author.may::<Block, _>(&lane(name)).map(|grant| (grant.rank(), grant.reach())).ok(),
            None => author.may::<Block, _>(&EveryLane(name.parse().unwrap()))
                .map(|grant| (grant.rank(), grant.reach())).ok(),
        };
        let Some((rank, reach)) = granted(name) else { return Ok(()) };
        for other in REPOSITORIES {
            prop_assert_eq!(reach.iter().any(|one| one.matches(other)), granted(other).is_some(), "{}", other);
        }
        let ranks: Vec<Rank> = bindings.iter()
            .filter(|one| authority(vec![(*one).clone()]).may::<Block, _>(&lane(name)).is_ok())
            .filter(|one| environment.is_some() || one.environments.is_none())
            .map(|one| one.role.rank()).collect();
        prop_assert_eq!(Some(&rank), ranks.iter().max());
    }
}

#[test]
fn only_administrators_may_everything_and_only_everywhere() {
    for role in Role::ALL {
        for pattern in ["**", "team/*"] {
            let binding = Binding { role, repositories: pattern.parse().unwrap(), environments: None };
            let may = authority(vec![binding]).may::<super::Administer, _>(&Everything).is_ok();
            assert_eq!(may, role == Role::Admin && pattern == "**", "{role} on {pattern}");
        }
        assert!(role.includes(Action::View), "{role}");
    }
}
