//! The short-lived tokens of docker's token flow: JWTs (RFC 7519) signed with the registry's token
//! key, which carry what they are for and the id of the token they were made with.

use super::callers::Caller;
use super::secret::Secret;
use crate::access::{Action, InEnvironment, Lane, Narrowing, Place, Scope};
use crate::clock;
use crate::failure::Failure;
use crate::keys::Keys;
use crate::names::RepositoryName;
use chrono::{DateTime, Utc};
use jsonwebtoken::{Algorithm, Header, Validation};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use uuid::Uuid;

/// What a docker token says.
#[derive(Debug, Serialize, Deserialize)]
struct Claims {
    iss: String,
    aud: String,
    sub: String,
    jti: Uuid,
    iat: i64,
    nbf: i64,
    exp: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    token: Option<Uuid>,
    access: Vec<Access>,
}

/// One entry of the `access` claim, as distribution's token specification has it.
#[derive(Debug, Serialize, Deserialize)]
struct Access {
    r#type: String,
    name: String,
    actions: Vec<String>,
}

/// A docker token that was signed by us and has not expired.
#[derive(Debug)]
pub struct DockerToken {
    /// The token it was made with; `None` for the public.
    pub token: Option<Uuid>,
    /// All that it may be used for.
    pub narrowing: Narrowing,
    /// When it ends.
    pub expires_at: DateTime<Utc>,
}

/// What a client asks a token for: `repository:<name>:<actions>` and `registry:catalog:*`; scopes of
/// other kinds are ignored, as distribution's specification asks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Requested(Narrowing);

/// Maximum number of repositories and views that one token is for. Every request with the token looks
/// through them, and anonymous clients can ask for tokens.
pub const MAX_SCOPES: usize = 100;

/// More repositories and views than one token can be for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a token is for at most {MAX_SCOPES} repositories")]
pub struct TooManyScopes;

impl Requested {
    /// Parses scopes, separated by spaces. Scopes of the same repository become one.
    pub fn parse<'a>(scopes: impl IntoIterator<Item = &'a str>) -> Result<Self, TooManyScopes> {
        let mut requested = Narrowing::default();
        for scope in scopes.into_iter().flat_map(str::split_ascii_whitespace) {
            if scope == "registry:catalog:*" {
                requested.catalog = true;
            } else if let Some((name, actions)) = repository_scope(scope) {
                add(&mut requested, name, actions.split(','));
                if requested.repositories.len() + requested.views.len() > MAX_SCOPES {
                    return Err(TooManyScopes);
                }
            }
        }
        Ok(Self(requested))
    }

    /// What of it the caller may do: the rest is left out silently, as the flow has it.
    fn allowed_to(self, caller: &Caller) -> Narrowing {
        let mut narrowing = self.0;
        for (name, actions) in &mut narrowing.repositories {
            let place = Place { repository: Some(name), environment: InEnvironment::Regardless };
            actions.retain(|action| caller.authority.allows(*action, place));
        }
        narrowing.repositories.retain(|(_, actions)| !actions.is_empty());
        narrowing.views.retain(|lane| caller.authority.allows(Action::View, lane.place()));
        narrowing
    }
}

/// `repository:<name>:<actions>`; the name may hold a port's colon in no registry of ours.
fn repository_scope(scope: &str) -> Option<(&str, &str)> {
    scope.strip_prefix("repository:")?.rsplit_once(':')
}

/// Adds actions on what the name stands for: a repository, or the view of a lane, which can be pulled
/// from and nothing else. What is neither is ignored.
fn add<'a>(narrowing: &mut Narrowing, name: &str, actions: impl Iterator<Item = &'a str>) {
    let mut actions = actions.flat_map(docker_actions).copied();
    if let Ok(repository) = name.parse::<RepositoryName>() {
        let known = narrowing.repositories.iter().position(|(known, _)| *known == repository);
        let at = known.unwrap_or_else(|| {
            narrowing.repositories.push((repository, Vec::new()));
            narrowing.repositories.len() - 1
        });
        let allowed = &mut narrowing.repositories[at].1;
        for action in actions {
            if !allowed.contains(&action) {
                allowed.push(action);
            }
        }
    } else if let Ok(lane) = name.parse::<Lane>()
        && actions.any(|action| action == Action::Pull)
        && !narrowing.views.contains(&lane)
    {
        narrowing.views.push(lane);
    }
}

fn docker_actions(text: &str) -> &'static [Action] {
    match text {
        "pull" => &[Action::Pull],
        "push" => &[Action::Push],
        "delete" => &[Action::Delete],
        "*" => &[Action::Pull, Action::Push, Action::Delete],
        _ => &[],
    }
}

/// A docker token that was made.
#[derive(Clone, Debug)]
pub struct Made {
    /// What the client sends.
    pub jwt: String,
    /// When it was made.
    pub issued_at: DateTime<Utc>,
    /// When it ends.
    pub expires_at: DateTime<Utc>,
}

/// Signs a token for what the caller asks and may do. It ends with the credential that the caller
/// showed, at the latest.
pub fn issue(keys: &Keys, caller: &Caller, requested: Requested, life: Duration) -> Result<Made, Failure> {
    let now = clock::now();
    let expires_at = caller.expires_at.map_or(now + life, |end| end.min(now + life));
    let narrowing = requested.allowed_to(caller);
    let mut access: Vec<Access> = narrowing
        .repositories
        .iter()
        .map(|(name, actions)| Access {
            r#type: "repository".to_owned(),
            name: name.to_string(),
            actions: actions.iter().map(|action| action.as_str().to_owned()).collect(),
        })
        .collect();
    access.extend(narrowing.views.iter().map(|lane| Access {
        r#type: "repository".to_owned(),
        name: lane.to_string(),
        actions: vec![Action::Pull.as_str().to_owned()],
    }));
    if narrowing.catalog {
        access.push(Access { r#type: "registry".into(), name: "catalog".into(), actions: vec!["*".into()] });
    }
    let claims = Claims {
        iss: keys.verifier_id().to_owned(),
        aud: keys.verifier_id().to_owned(),
        sub: caller.authority.principal().id.to_string(),
        jti: Uuid::now_v7(),
        iat: now.timestamp(),
        nbf: now.timestamp(),
        exp: expires_at.timestamp(),
        token: caller.token,
        access,
    };
    let jwt = jsonwebtoken::encode(&Header::new(Algorithm::EdDSA), &claims, keys.token_signing())
        .map_err(|error| Failure::new("signing a docker token", error))?;
    Ok(Made { jwt, issued_at: now, expires_at })
}

impl DockerToken {
    /// Reads a secret as a docker token: `None` when it is none, is not ours, or has expired.
    pub fn read(keys: &Keys, secret: &Secret) -> Option<Self> {
        if !secret.reveal().starts_with("eyJ") {
            return None;
        }
        let mut validation = Validation::new(Algorithm::EdDSA);
        validation.set_issuer(&[keys.verifier_id()]);
        validation.set_audience(&[keys.verifier_id()]);
        validation.set_required_spec_claims(&["exp", "iss", "aud", "nbf"]);
        validation.validate_nbf = true;
        let read = |key| jsonwebtoken::decode::<Claims>(secret.reveal(), key, &validation).ok();
        let claims = keys.token_verifying().iter().find_map(read)?.claims;
        let catalog =
            claims.access.iter().any(|access| access.r#type == "registry" && access.name == "catalog");
        let mut narrowing = Narrowing { catalog, ..Narrowing::default() };
        for access in claims.access.iter().filter(|access| access.r#type == "repository") {
            add(&mut narrowing, &access.name, access.actions.iter().map(String::as_str));
        }
        let expires_at = DateTime::from_timestamp(claims.exp, 0)?;
        // The library's leeway is for clocks that differ at its beginning, not for a longer life.
        (expires_at > clock::now()).then_some(Self { token: claims.token, narrowing, expires_at })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_are_read_and_united_and_others_are_ignored() {
        let requested = Requested::parse([
            "repository:team/app:pull,push repository:other:pull",
            "registry:catalog:*",
            "plugin:x:pull",
            "repository:UPPER:pull",
            "repository:env/prod/team/app:pull,push",
            "repository:env/prod/other:push",
            "repository:team/app:push,delete,push repository:env/prod/team/app:pull",
        ]);
        let expected = Narrowing {
            repositories: vec![
                ("team/app".parse().unwrap(), vec![Action::Pull, Action::Push, Action::Delete]),
                ("other".parse().unwrap(), vec![Action::Pull]),
            ],
            views: vec!["env/prod/team/app".parse().unwrap()],
            catalog: true,
        };
        assert_eq!(requested, Ok(Requested(expected)));
    }

    #[test]
    fn a_token_is_for_a_bounded_number_of_repositories() {
        let scopes = |count: usize| (0..count).map(|n| format!("repository:r{n}:pull")).collect::<Vec<_>>();
        let parse = |scopes: &[String]| Requested::parse(scopes.iter().map(String::as_str));
        assert!(parse(&scopes(MAX_SCOPES)).is_ok());
        assert_eq!(parse(&scopes(MAX_SCOPES + 1)), Err(TooManyScopes));
        let actions = "pull,push,*,".repeat(6000);
        let Requested(requested) = Requested::parse([format!("repository:a:{actions}").as_str()]).unwrap();
        assert_eq!(requested.repositories[0].1.len(), 3);
    }
}
