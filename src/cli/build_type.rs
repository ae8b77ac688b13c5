//! `build-type`: where provenance of types that are not built in names its source.

use super::connection::Registry;
use super::output::Output;
use super::stop::Stop;
use serde_json::json;

/// Declare where provenance of a build type names its source
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  proofmark build-type declare https://ci.example/build/v1 --source /checkout/url --branch /checkout/branch
  proofmark build-type declare https://ci.example/build/v2 --dependency source
  proofmark build-type list
  proofmark build-type end 1

GitHub Actions, slsa-github-generator's container-based builds, GitLab's runner, Tekton Chains, BuildKit, Google Cloud
Build and every type of SLSA provenance v0.2 are built in.")]
pub struct BuildType {
    #[command(subcommand)]
    command: BuildTypeCommand,
}

#[derive(clap::Subcommand, Debug)]
enum BuildTypeCommand {
    /// Declare a build type; another declaration of it ends
    Declare(Declare),
    /// List declarations, ended ones included
    List,
    /// End a declaration: the type names no source from then on
    End {
        /// Its id, as `build-type list` shows it
        id: i64,
    },
}

#[derive(clap::Args, Debug)]
struct Declare {
    /// The URI that provenance names as its buildType
    build_type: String,
    /// JSON pointer into externalParameters to the repository's address
    #[arg(long, value_name = "POINTER", required_unless_present = "dependency")]
    source: Option<String>,
    /// JSON pointer to the full ref, refs/heads/main [default: it stands in the address, git+https://host/path@ref]
    #[arg(long = "ref", value_name = "POINTER", requires = "source", conflicts_with = "branch")]
    reference: Option<String>,
    /// JSON pointer to the name of the branch, main
    #[arg(long, value_name = "POINTER", requires = "source")]
    branch: Option<String>,
    /// JSON pointer to the commit [default: that of the dependency that is the source]
    #[arg(long, value_name = "POINTER", requires = "source")]
    commit: Option<String>,
    /// Instead of pointers: the name of the entry of resolvedDependencies that is the source
    #[arg(long, value_name = "NAME", conflicts_with_all = ["source", "reference", "branch", "commit"])]
    dependency: Option<String>,
}

impl BuildType {
    /// Runs the command.
    pub async fn run(self, registry: &Registry, output: Output) -> Result<(), Stop> {
        match self.command {
            BuildTypeCommand::Declare(declare) => {
                let Declare { build_type, source, reference, branch, commit, dependency } = declare;
                let body = json!({"build_type": build_type, "source": source, "ref": reference, "branch": branch,
                    "commit": commit, "dependency": dependency});
                let declared = registry.put("/api/v1/build-types", &body).await?;
                output.answer(&declared, || format!("Declared {build_type}"));
                Ok(())
            }
            BuildTypeCommand::List => {
                let items = registry.list("/api/v1/build-types", &[], usize::MAX).await?;
                let columns = [
                    ("id", "/id"),
                    ("build type", "/build_type"),
                    ("source", "/source"),
                    ("ref", "/ref"),
                    ("branch", "/branch"),
                    ("commit", "/commit"),
                    ("dependency", "/dependency"),
                    ("declared by", "/declared_by"),
                    ("ended", "/ended_at"),
                ];
                output.list(&items, &columns, "No build type is declared");
                Ok(())
            }
            BuildTypeCommand::End { id } => {
                registry.delete(&format!("/api/v1/build-types/{id}")).await?;
                output.answer(&json!({"ended": id}), || format!("Ended declaration {id}"));
                Ok(())
            }
        }
    }
}
