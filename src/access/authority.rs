//! Bindings, and the one place that makes a `Grant` of them.

use super::{Act, Action, InEnvironment, Lane, Matching, Place, Pull, Rank, Role, Scope, View};
use crate::names::{EnvironmentName, Pattern, RepositoryName};
use std::collections::BTreeSet;
use std::marker::PhantomData;
use std::sync::Arc;

/// A principal's row id. Logged in events; never reused.
pub type PrincipalId = i64;

/// Who acts: a person, a pipeline, a cluster, or the anonymous public.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    /// The row that events name.
    pub id: PrincipalId,
    /// The name that people know.
    pub name: String,
}

/// A role on the repositories that match a pattern, in all or in named environments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binding {
    /// The role.
    pub role: Role,
    /// The repositories it covers.
    pub repositories: Pattern,
    /// The environments it covers; `None` is all of them.
    pub environments: Option<BTreeSet<EnvironmentName>>,
}

/// A principal with all its bindings.
#[derive(Clone, Debug)]
pub struct Authority {
    principal: Principal,
    bindings: Arc<[Binding]>,
    narrowed: Option<Narrowing>,
}

/// What a short-lived token was made for: it can never do more, whatever its principal may do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Narrowing {
    /// Actions on single repositories.
    pub repositories: Vec<(RepositoryName, Vec<Action>)>,
    /// Pulling from the views of single lanes.
    pub views: Vec<Lane>,
    /// Listing the names of all repositories that the principal may read, and nothing more of them.
    pub catalog: bool,
}

/// A permission as a value: this principal may do this action on the scope it carries.
#[derive(Debug)]
pub struct Grant<A: Act, S: Scope = RepositoryName> {
    principal: Principal,
    scope: S,
    bindings: Arc<[Binding]>,
    action: PhantomData<A>,
}

/// The answer no, with how much the caller may learn from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this needs the right to {}", action.as_str())]
pub struct Denied {
    /// What was asked for.
    pub action: Action,
    /// Whether the caller may see the scope at all; when not, the answer must be the same whether
    /// or not the scope exists.
    pub visible: bool,
}

impl Authority {
    /// A principal's bindings, as `identity` read them.
    pub fn new(principal: Principal, bindings: Vec<Binding>) -> Self {
        Self { principal, bindings: bindings.into(), narrowed: None }
    }

    /// The same principal, able to do no more than this.
    #[must_use]
    pub fn narrowed(&self, to: Narrowing) -> Self {
        Self { narrowed: Some(to), ..self.clone() }
    }

    /// Whether it is narrowed to what a short-lived token was made for.
    pub fn is_narrowed(&self) -> bool {
        self.narrowed.is_some()
    }

    /// What a short-lived token was made for, where this is one's.
    pub fn narrowing(&self) -> Option<&Narrowing> {
        self.narrowed.as_ref()
    }

    /// Who this is.
    pub fn principal(&self) -> &Principal {
        &self.principal
    }

    /// All that the principal is bound to.
    pub fn bindings(&self) -> &[Binding] {
        &self.bindings
    }

    /// Whether the principal is bound to just the same, in whichever order.
    pub fn has_same_bindings(&self, other: &Self) -> bool {
        self.bindings.len() == other.bindings.len()
            && self.bindings.iter().all(|binding| other.bindings.contains(binding))
    }

    /// A grant of the action on the scope, decided from the names alone.
    pub fn may<A: Act, S: Scope>(&self, scope: &S) -> Result<Grant<A, S>, Denied> {
        let place = scope.place();
        let allows = |action, place| match scope.pattern() {
            Some(pattern) => self.allows_matching(action, pattern, place),
            None => self.allows(action, place),
        };
        if allows(A::ACTION, place) {
            return Ok(Grant {
                principal: self.principal.clone(),
                scope: scope.clone(),
                bindings: Arc::clone(&self.bindings),
                action: PhantomData,
            });
        }
        // The names alone decide, so this tells nothing of what there is in an environment.
        let seen = Place { environment: InEnvironment::Any, ..place };
        Err(Denied { action: A::ACTION, visible: allows(Action::View, seen) })
    }

    /// Whether one binding allows the action on all repositories that match the pattern. A narrowed authority
    /// is for single repositories, and has no such right.
    fn allows_matching(&self, action: Action, pattern: &Pattern, place: Place<'_>) -> bool {
        self.narrowed.is_none() && self.bindings.iter().any(|one| one.allows_matching(action, pattern, place))
    }

    /// Whether the principal may read what a scope of a pattern is about: one binding covers all of it, or it
    /// covers all that one binding does, in its environment or, where it is about all, in any.
    pub fn sees_matching(&self, scope: &Matching) -> bool {
        let environment = scope.environment.as_ref().map_or(InEnvironment::Any, InEnvironment::One);
        let overlaps = |binding: &Binding| {
            binding.role.includes(Action::Pull)
                && binding.is_in(environment)
                && (binding.repositories.covers(&scope.repositories)
                    || scope.repositories.covers(&binding.repositories))
        };
        self.narrowed.is_none() && self.bindings.iter().any(overlaps)
    }

    /// Whether some binding allows the action at the place. For listings, which filter by it.
    pub fn allows(&self, action: Action, place: Place<'_>) -> bool {
        self.narrowed.as_ref().is_none_or(|narrowing| narrowing.covers(action, place))
            && self.bindings.iter().any(|binding| binding.allows(action, place))
    }

    /// Whether the catalog shows the repository: whoever may pull from it sees its name, and so does
    /// a token that was made to list what its principal may pull from.
    pub fn lists(&self, repository: &RepositoryName) -> bool {
        let named = self
            .narrowed
            .as_ref()
            .is_none_or(|narrowing| narrowing.catalog || narrowing.covers(Action::Pull, repository.place()));
        named && self.bindings.iter().any(|binding| binding.allows(Action::Pull, repository.place()))
    }

    /// Whether the principal may do the action somewhere in the environment. A narrowed authority is for content
    /// and has no such right.
    pub fn is_in(&self, action: Action, environment: &EnvironmentName) -> bool {
        let allows = |one: &Binding| one.is_in(InEnvironment::One(environment)) && one.role.includes(action);
        self.narrowed.is_none() && self.bindings.iter().any(allows)
    }

    /// The environments in which the principal may do the action on the repository; `None` is all of them.
    pub fn environments(
        &self,
        action: Action,
        repository: &RepositoryName,
    ) -> Option<BTreeSet<EnvironmentName>> {
        let covers = |b: &&Binding| b.role.includes(action) && b.repositories.matches(repository.as_str());
        self.bindings.iter().filter(covers).try_fold(BTreeSet::new(), |mut all, binding| {
            all.extend(binding.environments.iter().flatten().cloned());
            binding.environments.is_some().then_some(all)
        })
    }

    /// The patterns of all repositories on which the principal may do the action in some environment.
    /// They know nothing of a narrowing: a list query begins with them, and `allows` has the last word.
    pub fn patterns(&self, action: Action) -> Vec<&Pattern> {
        self.bindings.iter().filter(|b| b.role.includes(action)).map(|b| &b.repositories).collect()
    }
}

impl Narrowing {
    fn covers(&self, action: Action, place: Place<'_>) -> bool {
        let Some(name) = place.repository else { return false };
        let of = |lane: &Lane| match place.environment {
            InEnvironment::One(environment) => lane.repository == *name && lane.environment == *environment,
            InEnvironment::Any => lane.repository == *name,
            InEnvironment::Regardless | InEnvironment::All => false,
        };
        // What may be pulled may be viewed.
        let does = |actions: &[Action]| {
            actions.contains(&action) || (action == Action::View && actions.contains(&Action::Pull))
        };
        (action == Action::View && self.views.iter().any(of))
            || self.repositories.iter().any(|(covered, actions)| covered == name && does(actions))
    }
}

impl Binding {
    fn allows(&self, action: Action, place: Place<'_>) -> bool {
        let repository = match place.repository {
            Some(name) => self.repositories.matches(name.as_str()),
            None => self.repositories.is_everything(),
        };
        repository && self.is_in(place.environment) && self.role.includes(action)
    }

    fn allows_matching(&self, action: Action, pattern: &Pattern, place: Place<'_>) -> bool {
        self.repositories.covers(pattern) && self.is_in(place.environment) && self.role.includes(action)
    }

    fn is_in(&self, environment: InEnvironment<'_>) -> bool {
        match (&self.environments, environment) {
            (None, _) => true,
            (Some(some), InEnvironment::One(name)) => some.contains(name),
            (Some(some), InEnvironment::Any) => !some.is_empty(),
            (Some(_), InEnvironment::Regardless | InEnvironment::All) => false,
        }
    }
}

impl<A: Act, S: Scope> Grant<A, S> {
    /// Who was allowed.
    pub fn principal(&self) -> &Principal {
        &self.principal
    }

    /// What it was allowed on.
    pub fn scope(&self) -> &S {
        &self.scope
    }

    /// The highest rank among the roles that allow it.
    pub fn rank(&self) -> Rank {
        let place = self.scope.place();
        let allows = |binding: &&Binding| match self.scope.pattern() {
            Some(pattern) => binding.allows_matching(A::ACTION, pattern, place),
            None => binding.allows(A::ACTION, place),
        };
        self.bindings.iter().filter(allows).map(|binding| binding.role.rank()).max().unwrap_or(Rank::Promoter)
    }

    /// The patterns of all repositories on which the same principal may do the same, in the scope's environment or
    /// in every one, as the scope says.
    pub fn reach(&self) -> BTreeSet<Pattern> {
        let place = self.scope.place();
        let allows =
            |binding: &&Binding| binding.is_in(place.environment) && binding.role.includes(A::ACTION);
        self.bindings.iter().filter(allows).map(|binding| binding.repositories.clone()).collect()
    }
}

impl Grant<View, Lane> {
    /// The right to read the repository, as far as the lane's view shows it: whoever spends it has asked
    /// what the view shows.
    pub fn of_repository(&self) -> Grant<Pull> {
        Grant {
            principal: self.principal.clone(),
            scope: self.scope.repository.clone(),
            bindings: Arc::clone(&self.bindings),
            action: PhantomData,
        }
    }
}

impl<A: Act> Grant<A, RepositoryName> {
    /// The repository it was allowed on.
    pub fn repository(&self) -> &RepositoryName {
        &self.scope
    }
}

#[cfg(test)]
mod tests {
    use super::super::{EveryLane, Everything, Lane, Promote, Push, Waive};
    use super::*;

    fn authority(role: Role, repositories: &str, environments: Option<&[&str]>) -> Authority {
        let environments = environments.map(|names| names.iter().map(|n| n.parse().unwrap()).collect());
        let binding = Binding { role, repositories: repositories.parse().unwrap(), environments };
        Authority::new(Principal { id: 1, name: "ci".into() }, vec![binding])
    }

    fn name(text: &str) -> RepositoryName {
        text.parse().unwrap()
    }

    #[test]
    fn a_grant_carries_the_scope_it_was_asked_for() {
        let pusher = authority(Role::Pusher, "team/*", None);
        assert_eq!(pusher.may::<Push, _>(&name("team/app")).unwrap().repository(), &name("team/app"));
    }

    #[test]
    fn a_refusal_says_whether_the_caller_may_see_the_place() {
        let reader = authority(Role::Reader, "team/*", None);
        assert!(reader.may::<Push, _>(&name("team/app")).unwrap_err().visible);
        assert!(!reader.may::<Pull, _>(&name("other/app")).unwrap_err().visible);
    }

    #[test]
    fn a_narrowed_authority_does_no_more_than_it_was_made_for() {
        let admin = authority(Role::Admin, "**", None);
        let narrowed = admin.narrowed(Narrowing {
            repositories: vec![(name("a"), vec![Action::Pull])],
            ..Narrowing::default()
        });
        assert!(narrowed.may::<Pull, _>(&name("a")).is_ok());
        assert!(narrowed.may::<Push, _>(&name("a")).is_err());
        assert!(narrowed.may::<Pull, _>(&name("b")).is_err());
        assert!(narrowed.may::<Promote, _>(&Everything).is_err());
    }

    #[test]
    fn a_token_made_for_a_view_reads_nothing_beside_it() {
        let lane = |name: &str| name.parse::<Lane>().unwrap();
        let reader = authority(Role::Reader, "team/*", None);
        let narrowed = reader.narrowed(Narrowing {
            views: vec![lane("env/prod/team/app"), lane("env/prod/other")],
            ..Narrowing::default()
        });
        assert!(narrowed.may::<View, _>(&lane("env/prod/team/app")).is_ok());
        assert!(narrowed.may::<View, _>(&lane("env/staging/team/app")).is_err());
        assert!(narrowed.may::<View, _>(&lane("env/prod/other")).is_err(), "its principal may not");
        assert!(narrowed.may::<Pull, _>(&name("team/app")).is_err());
        assert!(narrowed.may::<Promote, _>(&lane("env/prod/team/app")).is_err());
        let deployer = authority(Role::Deployer, "team/*", Some(&["prod"]));
        assert!(deployer.may::<Pull, _>(&lane("env/prod/team/app")).is_ok());
        assert!(deployer.may::<Pull, _>(&lane("env/staging/team/app")).is_err(), "a role is in its places");
    }

    #[test]
    fn a_token_made_for_the_catalog_lists_names_and_reads_nothing() {
        let reader = authority(Role::Reader, "team/*", None);
        let catalog = reader.narrowed(Narrowing { catalog: true, ..Narrowing::default() });
        assert!(catalog.lists(&name("team/app")));
        assert!(!catalog.lists(&name("other/app")));
        assert!(catalog.may::<Pull, _>(&name("team/app")).is_err());
        let nothing = reader.narrowed(Narrowing::default());
        assert!(!nothing.lists(&name("team/app")));
    }

    #[test]
    fn a_right_covers_a_pattern_only_if_one_grant_covers_all_of_it() {
        let waives = |held: &str, environments: Option<&[&str]>, wanted: &str, environment: Option<&str>| {
            let wanted = Matching {
                repositories: wanted.parse().unwrap(),
                environment: environment.map(|name| name.parse().unwrap()),
            };
            authority(Role::Approver, held, environments).may::<Waive, _>(&wanted).is_ok()
        };
        assert!(waives("payments/*", None, "payments/api", None));
        assert!(waives("payments/*", None, "payments/*", Some("prod")));
        assert!(waives("**", None, "**", None));
        assert!(waives("payments/*", Some(&["prod"]), "payments/*", Some("prod")));
        assert!(!waives("payments/*", None, "**", None));
        assert!(!waives("payments/*", None, "payments/**", None));
        assert!(!waives("payments/*", Some(&["prod"]), "payments/*", Some("staging")));
        assert!(!waives("payments/*", Some(&["prod"]), "payments/*", None), "all environments");
        let everything = Matching { repositories: Pattern::everything(), environment: None };
        let narrowed = authority(Role::Admin, "**", None).narrowed(Narrowing::default());
        assert!(narrowed.may::<Waive, _>(&everything).is_err());
    }

    #[test]
    fn an_environment_limits_what_happens_there_and_nothing_else() {
        let promoter = authority(Role::Promoter, "**", Some(&["staging"]));
        let lane =
            |environment: &str| Lane { repository: name("a"), environment: environment.parse().unwrap() };
        assert!(promoter.may::<Promote, _>(&lane("staging")).is_ok());
        assert!(promoter.may::<Promote, _>(&lane("prod")).is_err());
        assert!(promoter.may::<Promote, _>(&EveryLane(name("a"))).is_err());
        assert!(promoter.may::<Promote, _>(&Everything).is_err());
        assert!(promoter.may::<Pull, _>(&name("a")).is_err(), "what happens in no environment");
        assert!(promoter.may::<Pull, _>(&name("a")).unwrap_err().visible);
        assert!(promoter.may::<View, _>(&lane("staging")).is_ok());
    }
}
