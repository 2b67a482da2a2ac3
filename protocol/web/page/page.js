"use strict";
// Shows what the verifier (WebAssembly, in the page itself) says. Nothing is judged here.

const CHECKS = {
  self_test: "Whether the cryptography in this page works on this device.",
  decode: "There is one way to write these facts as bytes, and this is it: no two files can say the same and differ.",
  trust: "trust.json follows from the ledger's first block by signatures. Compare its fingerprint.",
  header: "The block's header and votes are in the one form that is accepted.",
  chain: "All of it is of one and the same ledger.",
  validators: "Those who voted are those whom trust.json names for that time.",
  commit: "The validators' signatures on the block were calculated anew: more than two thirds agreed to it.",
  app_hash: "The block names one number for the ledger's whole state; the four parts used here make that number.",
  log_path: "A chain of hashes leads from this entry, with its verdict, to the ledger's log. A refusal cannot be shown as accepted.",
  op_hash: "What the file shows is what the ledger has, and not another operation.",
  commitment: "The opened fields were fixed before the ledger judged; a changed, added or removed one would be seen here.",
  session: "The asking agency had opened this session with the providing one.",
  request_signature: "The asking agency's session key signed this request.",
  request: "What was recorded is what was asked.",
  release_key: "The key that released the answer was the provider's, registered for that, and not revoked.",
  content_root: "The released content is the one that the operation names.",
  release_signature: "The provider signed that it released this content for this request.",
  checkpoint: "More than two thirds of the agencies countersigned the ledger's state, with post-quantum keys too.",
  contested: "The provider later declared this key stolen since before this entry: what it signed may be disputed.",
  verdict: "What the ledger decided.",
  runs: "The ledger's index of persons is shown without a gap between its ends.",
  tags: "Under this person's tags the index holds these operations and, with its neighbours shown, no other.",
  list: "Every operation found in the index is shown, and nothing else.",
  entry: "Each operation stands in the ledger's log with the verdict shown.",
  bulk: "For operations on many people at once: whether this person is among them.",
};

const STATES = {
  open: "", sealed: "its details open later", erased: "its details were erased", maybe: "may include this person",
  "not-included": "an operation on many people; this person is not among them",
};

const at = (id) => document.getElementById(id);
const chosen = { evidence: null, trust: null };
let verifier = null;

function load() {
  const text = atob(at("wasm").textContent);
  const bytes = Uint8Array.from(text, (c) => c.charCodeAt(0));
  // No imports: the module can reach nothing but its own memory.
  return WebAssembly.instantiate(bytes, {}).then((made) => made.instance.exports);
}

/** What the verifier says of these bytes. A verifier that stops says nothing good. */
async function concordatJudge(evidence, trust) {
  try {
    verifier ??= await load();
    [evidence, trust].forEach((bytes, input) => {
      const place = verifier.reserve(input, bytes.length);
      new Uint8Array(verifier.memory.buffer, place, bytes.length).set(bytes);
    });
    const length = verifier.judge();
    const answer = new Uint8Array(verifier.memory.buffer, verifier.answer_at(), length);
    return JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(answer));
  } catch (problem) {
    verifier = null;
    return { valid: false, check: "self_test", detail: "the verifier stopped: " + problem, of: "receipt" };
  }
}

function element(name, text, cls) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (cls) made.className = cls;
  return made;
}

function time(ms) {
  const when = new Date(ms);
  const box = element("span", when.toLocaleString(undefined, { dateStyle: "full", timeStyle: "long" }));
  box.append(" ", element("span", "(" + when.toISOString().replace("T", " ").replace(".000Z", " UTC").replace("Z", " UTC") + ")", "utc"));
  return box;
}

function facts(list, pairs) {
  list.replaceChildren();
  for (const [name, value] of pairs) {
    if (value === null || value === undefined || value === "") continue;
    const held = element("dd");
    held.append(value);
    list.append(element("dt", name), held);
  }
}

function title(r) {
  if (!r.valid) return "INVALID";
  return r.contested ? `VALID (${r.status}), but contested` : `VALID (${r.status})`;
}

function meaning(r) {
  if (!r.valid) return `Do not believe this file. It fails at the check “${r.check}”: ${r.detail}.`;
  if (r.of === "list") {
    const count = (state) => r.accesses.filter((a) => a.state === state).length;
    const sure = count("open") + count("sealed") + count("erased"), maybe = count("maybe");
    const span = `from op:${r.from_index} up to op:${r.complete_to - 1}`;
    const more = maybe ? ` ${maybe} more, each on many people at once, may include this person.` : "";
    if (!sure) return `${maybe ? "No operation is shown to be on this person's records" : "Nobody looked at this person's records"}, ${span}.${more}`;
    return `${sure} operation${sure === 1 ? "" : "s"} on this person's records, ${span}.${more || " The ledger names no other."}`;
  }
  const what = `${r.kind} of ${r.provider}${r.consumer ? " for " + r.consumer : ""}`;
  if (r.verdict === "accepted") return `The ledger accepted ${r.operation}: ${what}.`;
  const released = r.released ? " Yet the provider released data." : "";
  return `The ledger did not accept ${r.operation} (${what}): ${r.verdict}, code ${r.code}, ${r.code_text}.${released}`;
}

function showList(r) {
  facts(at("facts"), [
    ["Dataset", r.dataset], ["Provider", r.provider], ["Person", `${r.subject} (short name of the key in the file)`],
    ["Complete from", `op:${r.from_index}`], ["Complete up to", `before op:${r.complete_to}${{ true: ", where the newest run ends", false: ", where this list was cut; newer runs exist" }[r.to_newest_run] ?? ""}`], ["That is until", time(r.complete_to_ms)],
    ["Countersigned by", r.cosigners.join(", ")],
  ]);
  at("accesses").replaceChildren(...r.accesses.map((a) => {
    const item = element("li");
    item.append(element("strong", `${a.operation}, ${a.kind}`), ` ${a.consumer ? "by " + a.consumer : ""} `, time(a.tick_ms));
    const rest = [a.verdict === "accepted" ? "" : `${a.verdict}: ${a.code_text}`, a.clause, a.purpose, STATES[a.state] ?? a.state];
    if (a.open_by_ms && a.state === "sealed") rest.push(`opens by ${new Date(a.open_by_ms).toISOString().slice(0, 10)}`);
    item.append(element("div", rest.filter(Boolean).join(" · ")));
    if (a.sentence) item.append(element("div", `The provider says of the clause: “${a.sentence}”`, "why"));
    return item;
  }));
}

function showReceipt(r) {
  const without = r.status === "final" && r.not_countersigned ? r.not_countersigned.join(", ") : "";
  facts(at("facts"), [
    ["Operation", r.operation], ["Kind", r.kind], ["Verdict", `${r.verdict} (code ${r.code}: ${r.code_text})`], ["Time", time(r.tick_ms)],
    ["Provider", r.provider], ["Asked by", r.consumer], ["Agreement", r.agreement], ["Clause", r.clause], ["Written by", r.writer],
    ["Block", `${r.height}, proven against the state of ${r.proof_height}`], ["Answer released", r.released ? "yes, signed by the provider" : "not shown"],
    ["Countersigned by", r.cosigners.join(", ")], ["Not countersigned by", without],
  ]);
  const opened = Object.entries(r.opened).filter(([, value]) => value !== "");
  at("opened-part").hidden = opened.length === 0;
  facts(at("opened"), opened);
}

function show(r) {
  at("fingerprint-part").hidden = !r.fingerprint;
  at("fingerprint").textContent = r.fingerprint ?? "";
  at("chain").textContent = r.chain ?? "";
  const verdict = at("verdict");
  at("result").hidden = r.of === "trust" && r.valid;
  for (const part of ["opened-part", "accesses-part", "checks-part"]) at(part).hidden = true;
  if (r.of === "trust" && r.valid) return;
  verdict.textContent = title(r);
  verdict.className = r.valid ? (r.contested || (r.verdict && r.verdict !== "accepted") ? "caution" : "valid") : "invalid";
  at("meaning").textContent = meaning(r);
  at("facts").replaceChildren();
  if (r.valid && r.of === "list") {
    at("accesses-part").hidden = r.accesses.length === 0;
    showList(r);
  } else if (r.valid) {
    showReceipt(r);
  }
  const checks = r.valid ? r.checks : [{ name: r.check, sentence: r.detail }];
  at("checks-part").hidden = false;
  at("checks").replaceChildren(...checks.map((c) => {
    const item = element("li");
    item.append(element("code", c.name), " ", r.valid ? c.sentence : "failed: " + c.sentence);
    item.append(element("div", CHECKS[c.name] ?? "", "why"));
    return item;
  }));
  verdict.focus();
}

async function update() {
  if (!chosen.trust) {
    at("fingerprint-part").hidden = at("result").hidden = true;
    return;
  }
  document.body.dataset.state = "busy";
  show(await concordatJudge(chosen.evidence ?? new Uint8Array(), chosen.trust));
  document.body.dataset.state = "done";
}

async function take(which, file, dropped) {
  chosen[which] = file ? new Uint8Array(await file.arrayBuffer()) : null;
  // An input shows the name of what was chosen in it; what was dropped is named beside it.
  at(which + "-name").textContent = dropped ? file.name + " (dropped)" : "";
}

for (const which of ["evidence", "trust"]) {
  at(which).addEventListener("change", async (event) => {
    await take(which, event.target.files[0], false);
    await update();
  });
}
addEventListener("dragover", (event) => {
  event.preventDefault();
  document.body.classList.add("over");
});
addEventListener("dragleave", () => document.body.classList.remove("over"));
addEventListener("drop", async (event) => {
  event.preventDefault();
  document.body.classList.remove("over");
  for (const file of event.dataTransfer.files) await take(file.name.endsWith(".json") ? "trust" : "evidence", file, true);
  await update();
});
