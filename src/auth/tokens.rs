//! Static bearer tokens: `--token-auth-file`, lines of `token,user,uid[,"group1,group2"]`.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use super::User;
use crate::config::ConfigError;

pub type Tokens = HashMap<String, Arc<User>>;

pub fn read(path: &Path) -> Result<Tokens, ConfigError> {
    let error = |problem: String, fix: &str| ConfigError { flag: "--token-auth-file", problem, fix: fix.into() };
    let text = std::fs::read_to_string(path)
        .map_err(|e| error(format!("{}: {e}", path.display()), "give a file that can be read"))?;
    let mut tokens = Tokens::new();
    for (number, fields) in records(&text) {
        let [token, name, uid, rest @ ..] = fields.as_slice() else {
            let problem = format!("{}, line {number}: {} columns", path.display(), fields.len());
            return Err(error(problem, "write at least three: token, user name, user uid"));
        };
        if token.is_empty() {
            tracing::warn!("{}, line {number}: an empty token is left out", path.display());
            continue;
        }
        let groups = rest.first().filter(|groups| !groups.is_empty());
        let groups = groups.map(|groups| groups.split(',').map(|group| group.trim().to_owned()).collect());
        let user = User { name: name.clone(), uid: uid.clone(), groups: groups.unwrap_or_default(), ..User::default() };
        if tokens.insert(token.clone(), Arc::new(user.authenticated())).is_some() {
            tracing::warn!("{}, line {number}: this token was there before; the last counts", path.display());
        }
    }
    Ok(tokens)
}

/// Comma-separated values with the number of the line where each record begins. A field may stand in double quotes, in
/// which a quote is doubled and a line may end.
fn records(text: &str) -> Vec<(usize, Vec<String>)> {
    let mut records = Vec::new();
    let (mut line, mut start) = (1, 1);
    let (mut fields, mut field, mut quoted) = (Vec::new(), String::new(), false);
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => field.extend(chars.next()),
            '"' if quoted || field.trim().is_empty() => quoted = !quoted,
            ',' if !quoted => fields.push(std::mem::take(&mut field).trim().to_owned()),
            '\n' if !quoted => {
                if !fields.is_empty() || !field.trim().is_empty() {
                    fields.push(std::mem::take(&mut field).trim().to_owned());
                    records.push((start, std::mem::take(&mut fields)));
                }
                field.clear();
                start = line + 1;
            }
            c => field.push(c),
        }
        line += usize::from(c == '\n');
    }
    if !fields.is_empty() || !field.trim().is_empty() {
        fields.push(field.trim().to_owned());
        records.push((start, fields));
    }
    records
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(text: &str) -> Result<Tokens, ConfigError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokens.csv");
        std::fs::write(&path, text).unwrap();
        read(&path)
    }

    #[test]
    fn the_file_is_as_kube_apiserver_reads_it() {
        let tokens = from("a,admin,1,\"system:masters, ops\"\r\n\nb,bob,2\nc,\"carol, the third\",3,devs").unwrap();
        let groups = |token: &str| tokens[token].groups.join(" ");
        assert_eq!(groups("a"), "system:masters ops system:authenticated");
        assert_eq!(groups("b"), "system:authenticated");
        assert_eq!(
            (tokens["c"].name.as_str(), groups("c").as_str()),
            ("carol, the third", "devs system:authenticated")
        );
        assert!(from("a,b").unwrap_err().to_string().contains("line 1: 2 columns"));
    }
}
