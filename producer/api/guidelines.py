"""The usage guidelines that an org accepts (docs/guidelines.md has the same), and the page on which
it does so and applies for full access.

The page needs no framework and nothing from elsewhere. An API key goes into a field, from there
into the header of each request, and nowhere else: not into an address, not into a store.
"""

import html

from millpond.domain.account import GUIDELINES_VERSION
from millpond.producer.http.table import Call, Handler, Reply, Route, Who

#: The text of version GUIDELINES_VERSION: whoever changes it makes a newer version.
GUIDELINES = (
    "Do not use a model to harm people, to deceive them, or to break the law.",
    "Do not generate hate, harassment, violence, sexual content with minors, or malware.",
    "Do not decide about people by an answer alone: on health, money, work, housing or law a "
    "person who can say no looks at it first.",
    "Tell people when they read or talk to a machine.",
    "Send personal data only if you may, and no more of it than the task needs.",
    "Try what you build on the people and languages that it is for, and watch it in use.",
    "Keep your keys to yourself, stay within your limits, and do not split an org to have more.",
    "Stop and tell us when something goes wrong; we suspend an org that does harm.",
)

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
)

_RULES = "\n".join(f"<li>{html.escape(one)}</li>" for one in GUIDELINES)

_PAGE = f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Access</title>
<link rel="stylesheet" href="access.css">
<script type="module" src="access.js"></script>
</head>
<body>
<main>
<h1>Access</h1>
<p>An org begins in limited mode, for tests and experiments. For production it applies for full
access: fill in the form, and a reviewer decides.</p>

<form id="who" autocomplete="off">
<label>API key
<input id="key" type="password" required autocomplete="off" spellcheck="false"></label>
<button>Show</button>
</form>
<noscript>
<p>Without JavaScript the form cannot send your key as it must go, in a header. Ask so:</p>
<pre>curl -H "Authorization: Bearer KEY" …/v1/access
curl -H "Authorization: Bearer KEY" -H "Content-Type: application/json" …/v1/access/application \\
  -d '{{"use_case": "…", "risks": "…", "commitment": true,
       "guidelines": "{GUIDELINES_VERSION}"}}'</pre>
</noscript>
<p id="told" role="status" aria-live="polite"></p>

<section id="state" hidden>
<h2>Where you stand</h2>
<dl>
<dt>Mode</dt><dd id="mode"></dd>
<dt>Guidelines accepted</dt><dd id="accepted"></dd>
<dt>Application</dt><dd id="stage"></dd>
</dl>
<ol id="talk"></ol>
</section>

<h2>Usage guidelines, version <span id="version">{GUIDELINES_VERSION}</span></h2>
<ol>
{_RULES}
</ol>

<form id="application" hidden>
<h2>Apply for full access</h2>
<label>What you will use it for
<textarea id="use_case" required maxlength="4000"></textarea></label>
<label>What may go wrong, and what you do about it
<textarea id="risks" required maxlength="4000"></textarea></label>
<label class="row"><input id="commitment" type="checkbox" required>
We commit to responsible use and accept the usage guidelines above.</label>
<button>Apply</button>
</form>

<form id="answer" hidden>
<h2>The reviewer asked</h2>
<label>Your answer <textarea id="text" required maxlength="4000"></textarea></label>
<button>Answer</button>
</form>

<form id="withdraw" hidden><button>Withdraw the application</button></form>
</main>
</body>
</html>
"""

_STYLE = """:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }
body { margin: 0; }
main { max-width: 42rem; margin: 2rem auto; padding: 0 1rem; }
label { display: block; margin: .75rem 0; }
label.row { display: flex; gap: .5rem; align-items: baseline; }
input[type=password], textarea { display: block; width: 100%; box-sizing: border-box; }
input, textarea { font: inherit; }
textarea { min-height: 6rem; }
button { font: inherit; padding: .3rem 1rem; }
dt { font-weight: 600; }
dd { margin: 0 0 .5rem; }
pre { overflow-x: auto; }
[hidden] { display: none; }
"""

_SCRIPT = """// Shows where an org stands, and sends its forms. The key stays in its field.
const at = (id) => document.getElementById(id);
const say = (text) => { at("told").textContent = text; };

async function ask(method, path, body) {
  const headers = { Authorization: `Bearer ${at("key").value.trim()}` };
  if (body !== undefined) headers["Content-Type"] = "application/json";
  const reply = await fetch(`../v1/access${path}`, {
    method, headers, body: body === undefined ? undefined : JSON.stringify(body),
    credentials: "omit", cache: "no-store", redirect: "error",
  });
  const told = await reply.json();
  if (reply.ok) return told;
  const fields = (told.errors ?? []).map((one) => `${one.pointer}: ${one.detail}`);
  throw new Error([told.detail, ...fields].join(" "));
}

function show(access) {
  const last = access.application;
  const waits = last !== null && (last.stage === "open" || last.stage === "asked");
  at("mode").textContent = access.mode + (access.suspended ? ", suspended" : "");
  at("accepted").textContent = access.guidelines.accepted ?? "not yet";
  at("version").textContent = access.guidelines.current;
  at("stage").textContent = last === null ? "none"
    : `${last.stage}${last.decision?.why ? `: ${last.decision.why}` : ""}`;
  at("talk").replaceChildren(...(last?.talk ?? []).map((word) => {
    const line = document.createElement("li");
    line.textContent = `${word.how === "ask" ? "Asked" : "Answered"}: ${word.text}`;
    return line;
  }));
  at("state").hidden = false;
  at("application").hidden = access.mode === "full" || waits;
  at("answer").hidden = last?.stage !== "asked";
  at("withdraw").hidden = !waits;
}

function on(id, done, send) {
  at(id).addEventListener("submit", async (event) => {
    event.preventDefault();
    const button = event.submitter;
    if (button) button.disabled = true;
    say("…");
    try {
      await send();
      show(await ask("GET", ""));
      say(done);
    } catch (error) {
      say(error.message);
    } finally {
      if (button) button.disabled = false;
    }
  });
}

on("who", "", async () => {});
on("application", "Sent. A reviewer will look at it.", () => ask("POST", "/application", {
  use_case: at("use_case").value, risks: at("risks").value,
  commitment: at("commitment").checked, guidelines: at("version").textContent,
}));
on("answer", "Sent.", () => ask("POST", "/application/answer", { text: at("text").value }));
on("withdraw", "Withdrawn.", () => ask("POST", "/application/withdraw"));
"""


def page_routes() -> list[Route]:
    """The page and what it needs, for anybody: they hold nothing of any org."""
    return [
        _file("/playground/access", access_page, "text/html", "A form for full access"),
        _file("/playground/access.js", access_script, "text/javascript", "What the form does"),
        _file("/playground/access.css", access_style, "text/css", "How the form looks"),
    ]


def _file(path: str, handler: Handler, type: str, summary: str) -> Route:
    return Route(
        "GET", path, handler, who=Who.ANYBODY, summary=summary, reply_type=type, described=False
    )


async def access_page(_: Call) -> Reply:
    return _reply(_PAGE, "text/html")


async def access_script(_: Call) -> Reply:
    return _reply(_SCRIPT, "text/javascript")


async def access_style(_: Call) -> Reply:
    return _reply(_STYLE, "text/css")


def _reply(text: str, type: str) -> Reply:
    headers = {
        "Content-Type": f"{type}; charset=utf-8",
        "Content-Security-Policy": _POLICY,
        "Cache-Control": "no-cache",
    }
    return Reply(text, headers=headers)
