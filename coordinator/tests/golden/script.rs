//! A scenario file: comment, fleet, commands with what they print.

use crate::fleet::Setup;
use crate::steps::{Player, refused_plan};

/// Plays the commands of a file; the same file with what they print now.
pub fn played(text: &str) -> Result<String, String> {
    let (setup, commands) = match text.find("\n$ ") {
        Some(at) => text.split_at(at + 1),
        None => return Err("it has no step: a line that begins with `$ `".to_owned()),
    };
    if !setup.starts_with("# ") {
        return Err("it does not begin with a comment that says what to look for".to_owned());
    }
    let fleet = Setup::parse(setup)?;
    if let Some(refusal) = refused_plan(&fleet) {
        // A fleet file that is refused is a scenario of its own: nothing follows.
        let only = commands
            .lines()
            .filter(|line| line.starts_with("$ "))
            .eq(["$ plan"]);
        let why = format!("the fleet file is refused, and `$ plan` is not the only step:\n{refusal}");
        return if only {
            Ok(format!("{setup}$ plan\n{refusal}\n"))
        } else {
            Err(why)
        };
    }
    let mut player = Player::new(fleet)?;
    let mut out = setup.to_owned();
    let mut screens = 0;
    for (number, line) in commands.lines().enumerate() {
        if let Some(command) = line.strip_prefix("$ ") {
            let printed = player
                .step(command)
                .map_err(|error| format!("`{command}`: {error}"))?;
            if let Some(bad) = printed
                .lines()
                .find(|line| line.starts_with("$ ") || line.starts_with("# "))
            {
                return Err(format!(
                    "a screen has a line that looks like a step or a comment: {bad}"
                ));
            }
            out.push_str(line);
            out.push('\n');
            let printed = printed.trim_end_matches('\n');
            if !printed.is_empty() {
                out.push_str(printed);
                out.push_str("\n\n");
                screens += usize::from(Player::is_screen(command));
            }
        } else if line.starts_with("# ") {
            if number > 0 && !out.ends_with("\n\n") {
                out.push('\n');
            }
            out.push_str(line);
            out.push('\n');
        }
    }
    if screens == 0 {
        return Err("it shows no screen: a step such as `status`, `explain` or `report`".to_owned());
    }
    player.judge()?;
    Ok(format!("{}\n", out.trim_end()))
}
