// The page of the fake Slack. It polls, draws what changed, and sends what the person does to /_sandbox/.
// Message text never becomes HTML: every word of it is put into a text node.

import { drawFile } from "./files.js";
import { node } from "./node.js";

const POLL_MS = 700;
const $ = (id) => document.getElementById(id);
const state = { workspace: null, channel: "C0INCIDENT", actor: "", version: "", atEnd: true, drawn: "" };

async function ask(path, told) {
  const sent = told && { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(told) };
  const answer = await fetch(`/_sandbox/${path}`, sent || {});
  return answer.status === 204 ? null : answer.json();
}

// Slack's mrkdwn: <…> references, then code, bold, italic, strike, and the three escapes.

const byId = (list, id) => state.workspace[list].find((one) => one.id === id);
const unescaped = (text) => text.replaceAll("&lt;", "<").replaceAll("&gt;", ">").replaceAll("&amp;", "&");
const isSafe = (url) => /^(https?:|mailto:)/i.test(url);
const TOKEN = /```([\s\S]+?)```|`([^`\n]+)`|<([^<>]+)>|(?<![\p{L}\d])([*_~])(?=\S)([^\n]*?\S)\4(?![\p{L}\d])/u;
const STYLE = { "*": "strong", _: "em", "~": "s" };

const QUOTE = /^(?:(?:&gt;|>)[^\n]*(?:\n|$))+/m;

function mrkdwn(text) {
  const quote = text.includes("```") ? null : QUOTE.exec(text);
  if (!quote) return inline(text);
  const quoted = quote[0].replace(/^(?:&gt;|>) ?/gm, "").replace(/\n$/, "");
  const after = text.slice(quote.index + quote[0].length);
  return [...inline(text.slice(0, quote.index)), node("blockquote", {}, ...inline(quoted)), ...mrkdwn(after)];
}

function inline(text) {
  const parts = [];
  let rest = text;
  for (let found = TOKEN.exec(rest); found; found = TOKEN.exec(rest)) {
    const [whole, pre, code, reference, mark, inner] = found;
    if (found.index) parts.push(unescaped(rest.slice(0, found.index)));
    if (pre !== undefined) parts.push(node("pre", { text: unescaped(pre.replace(/^\n/, "")) }));
    else if (code !== undefined) parts.push(node("code", { text: unescaped(code) }));
    else if (reference !== undefined) parts.push(referred(reference));
    else parts.push(node(STYLE[mark], {}, ...inline(inner)));
    rest = rest.slice(found.index + whole.length);
  }
  return rest ? [...parts, unescaped(rest)] : parts;
}

function referred(reference) {
  const [target, label] = reference.split("|");
  const mention = (text) => node("span", { className: "mention", text });
  if (target.startsWith("@")) return mention(`@${byId("people", target.slice(1))?.name ?? label ?? target.slice(1)}`);
  if (target.startsWith("#")) return mention(`#${byId("channels", target.slice(1))?.name || label || target.slice(1)}`);
  if (target.startsWith("!subteam^")) return mention(`@${byId("usergroups", target.slice(9))?.handle ?? target.slice(9)}`);
  if (target.startsWith("!date^")) return document.createTextNode(unescaped(label ?? ""));
  if (target.startsWith("!")) return mention(`@${target.slice(1)}`);
  return link(unescaped(target), unescaped(label ?? target));
}

function link(url, text) {
  return isSafe(url) ? node("a", { href: url, rel: "noreferrer", target: "_blank", text }) : document.createTextNode(text);
}

const textOf = (object) => (object.type === "mrkdwn" ? mrkdwn(object.text) : [object.text]);
const words = (object) => node("div", { className: "text" }, ...textOf(object));

function richLeaf(leaf) {
  const named = {
    user: () => referred(`@${leaf.user_id}`),
    usergroup: () => referred(`!subteam^${leaf.usergroup_id}`),
    channel: () => referred(`#${leaf.channel_id}`),
    broadcast: () => referred(`!${leaf.range}`),
    emoji: () => document.createTextNode(`:${leaf.name}:`),
    link: () => link(leaf.url, leaf.text ?? leaf.url),
    date: () => document.createTextNode(leaf.fallback ?? new Date(leaf.timestamp * 1000).toLocaleString()),
  };
  let made = named[leaf.type]?.() ?? document.createTextNode(leaf.text ?? "");
  for (const [style, tag] of Object.entries({ code: "code", bold: "strong", italic: "em", strike: "s" })) {
    if (leaf.style?.[style]) made = node(tag, {}, made);
  }
  return made;
}

function richPart(part) {
  const tags = { rich_text_preformatted: "pre", rich_text_quote: "blockquote", rich_text_list: part.style === "ordered" ? "ol" : "ul" };
  if (part.type === "rich_text_list") return node(tags[part.type], {}, ...part.elements.map((one) => node("li", {}, richPart(one))));
  return node(tags[part.type] ?? "div", { className: "text" }, ...part.elements.map(richLeaf));
}

function button(element, message) {
  const made = node("button", { type: "button", text: element.text.text, className: element.style ?? "" });
  made.dataset.key = `${message.ts}/${element.action_id}`;
  if (element.accessibility_label) made.setAttribute("aria-label", element.accessibility_label);
  made.addEventListener("click", async () => {
    if (element.confirm && !(await confirmed(element.confirm))) return;
    made.disabled = true;
    await gesture("click", { ts: message.ts, action_id: element.action_id });
    made.disabled = false;
  });
  return made;
}

function confirmed(confirm) {
  const dialog = $("confirm");
  $("confirm-title").textContent = confirm.title.text;
  $("confirm-text").replaceChildren(words(confirm.text));
  $("confirm-yes").textContent = confirm.confirm.text;
  $("confirm-yes").className = confirm.style ?? "primary";
  $("confirm-no").textContent = confirm.deny.text;
  dialog.returnValue = "no";
  dialog.showModal();
  return new Promise((done) => dialog.addEventListener("close", () => done(dialog.returnValue === "yes"), { once: true }));
}

const picture = (image) => node("span", { className: "quiet", text: `[picture: ${image.alt_text}]` });

const BLOCKS = {
  header: (block) => [block.text.text],
  divider: () => [node("hr")],
  image: (block) => [picture(block)],
  context: (block) => block.elements.map((one) => (one.type === "image" ? picture(one) : node("span", {}, ...textOf(one)))),
  actions: (block, message) => block.elements.map((one) => button(one, message)),
  rich_text: (block) => block.elements.map(richPart),
  section: (block, message) => {
    const body = node("div", { className: "body" });
    if (block.text) body.append(words(block.text));
    if (block.fields) body.append(node("div", { className: "fields" }, ...block.fields.map(words)));
    const extra = block.accessory;
    return extra ? [body, extra.type === "button" ? button(extra, message) : picture(extra)] : [body];
  },
};

const drawBlock = (block, message) =>
  node("div", { className: `block ${block.type}` }, ...(BLOCKS[block.type]?.(block, message) ?? [`[${block.type}]`]));

function drawMessage(message) {
  const person = byId("people", message.user);
  const name = person?.name ?? message.user;
  const seen = [new Date(message.ts * 1000).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" })];
  if (person?.is_bot) seen.unshift("app");
  if (message.edited) seen.push("edited");
  if (message.is_ephemeral) seen.push("Only visible to you");
  if (message.subtype === "thread_broadcast") seen.push("also sent to the channel");
  const content = message.blocks?.length
    ? message.blocks.map((block) => drawBlock(block, message))
    : [node("div", { className: "text" }, ...mrkdwn(message.text))];
  content.push(...(message.files ?? []).map(drawFile));
  const body = node("div", {}, node("div", { className: "by", text: name }, node("small", { text: seen.join(" · ") })), ...content);
  const face = node("span", { className: "face", "aria-hidden": "true", text: initials(name) });
  const made = node("article", { className: `message${message.is_ephemeral ? " alone" : ""}`, "data-ts": message.ts }, face, body);
  if (message.replies?.length) made.append(node("div", { className: "thread" }, ...message.replies.map(drawMessage)));
  return made;
}

const initials = (name) => name.split(/\s+/).map((word) => word[0]).join("").slice(0, 2).toUpperCase();

// Drawing keeps what did not change, so that scroll, focus and screen readers are left alone.

function drawMessages(messages) {
  const list = $("messages");
  const focused = document.activeElement?.dataset?.key;
  const kept = new Map([...list.children].filter((one) => one.dataset.ts).map((one) => [one.dataset.ts, one]));
  const wanted = messages.map((message) => {
    const drawn = JSON.stringify(message);
    const old = kept.get(message.ts);
    if (old?.drawn === drawn) return old;
    return Object.assign(drawMessage(message), { drawn });
  });
  if (!wanted.length) wanted.push(node("p", { className: "empty", text: "Nothing has been said here yet." }));
  wanted.forEach((made, place) => {
    if (list.children[place] !== made) list.insertBefore(made, list.children[place] ?? null);
  });
  while (list.children.length > wanted.length) list.lastChild.remove();
  if (focused) list.querySelector(`[data-key="${CSS.escape(focused)}"]`)?.focus({ preventScroll: true });
  if (state.atEnd) toEnd();
}

function toEnd() {
  $("messages").scrollTop = $("messages").scrollHeight;
}

$("messages").addEventListener("scroll", ({ target }) => {
  state.atEnd = target.scrollHeight - target.scrollTop - target.clientHeight < 60;
});
new ResizeObserver(() => state.atEnd && toEnd()).observe($("messages"));

function drawWorkspace() {
  const { channels, people, team } = state.workspace;
  $("team").textContent = team;
  const seen = channels.filter((one) => !one.is_direct || one.members.includes(state.actor) || one.id === state.channel);
  $("channels").replaceChildren(...seen.map((channel) => {
    const sign = channel.is_direct ? "✉ " : channel.is_private ? "◆ " : "# ";
    const notes = [channel.is_archived && "archived", channel.is_shared && "shared"].filter(Boolean).join(", ");
    const made = node("button", { type: "button" }, node("span", { text: sign + channel.name }), node("small", { text: notes }));
    if (channel.id === state.channel) made.setAttribute("aria-current", "true");
    if (!channel.members.includes(state.actor)) made.classList.add("outside");
    made.addEventListener("click", () => choose({ channel: channel.id }));
    return node("li", {}, made);
  }));
  if (!$("actor").children.length) {
    const note = (one) => (one.is_guest ? " (guest)" : one.is_outside ? " (other company)" : one.is_deactivated ? " (left)" : "");
    const actors = people.filter((one) => !one.is_bot);
    $("actor").replaceChildren(...actors.map((one) => node("option", { value: one.id, text: one.name + note(one) })));
  }
  $("actor").value = state.actor;
  const channel = byId("channels", state.channel);
  $("title").textContent = (channel.is_direct ? "" : "#") + channel.name;
  $("topic").textContent = channel.topic;
}

function choose(change) {
  Object.assign(state, change, { version: "" });
  $("messages").replaceChildren();
  $("notice").textContent = "";
  drawWorkspace();
  refresh().then(toEnd);
}

async function gesture(kind, told) {
  const answer = await ask(kind, { user: state.actor, channel: state.channel, ...told });
  $("notice").textContent = answer.ok ? "" : answer.error;
  await refresh();
  return answer.ok;
}

async function refresh() {
  const { channel, actor, version } = state;
  const seen = await ask(`conversation?${new URLSearchParams({ channel, user: actor, version })}`);
  if (!seen?.ok || channel !== state.channel || actor !== state.actor) return;
  if (seen.conversations.length !== state.workspace.channels.length) {
    state.workspace = await ask("workspace");
    drawWorkspace();
  }
  state.version = String(seen.version);
  drawMessages(seen.messages);
}

// The simulator is mounted beside this fake; where the fake runs alone, there is none.
const FLEET = "/_sandbox/iot/_sandbox/fleet";
const SHADES = { CONFIRM: "#9aa7b5", QUEUED: "#6d8fc7", NOTIFIED: "#c9a227", IN_PROGRESS: "#d9772b", SUCCEEDED: "#3c9a6e", FAILED: "#b3261e", CANCELED: "#7a6aa8" };

async function refreshFleet() {
  const answer = await fetch(FLEET);
  $("fleet").hidden = !answer.ok;
  if (!answer.ok) return false;
  const { jobs } = await answer.json();
  const drawn = JSON.stringify(jobs);
  if (drawn !== state.drawn) $("jobs").replaceChildren(...jobs.map(drawJob));
  state.drawn = drawn;
  return true;
}

function drawJob(job) {
  const bar = node("div", { className: "bar", "aria-hidden": "true" });
  const list = node("dl");
  for (const [name, count] of Object.entries(job.counts).filter(([, devices]) => devices)) {
    const part = node("i");
    part.style.flexGrow = count;
    part.style.background = SHADES[name] ?? "gray";
    bar.append(part);
    list.append(node("dt", { text: name.toLowerCase().replace("_", " ") }), node("dd", { text: String(count) }));
  }
  const named = job.name && job.name !== job.job_id ? [job.job_id] : [];
  const facts = [...named, job.kind, job.state.toLowerCase().replace("_", " ")].join(" · ");
  const title = node("h3", { text: job.name || job.job_id });
  return node("section", { className: "job" }, title, node("p", { text: facts }), bar, list);
}

async function keepFresh(refreshOnce) {
  for (;;) {
    const goesOn = await refreshOnce().catch(() => undefined);
    if (goesOn === false) return;
    await new Promise((next) => setTimeout(next, POLL_MS));
  }
}

$("composer").addEventListener("submit", async (event) => {
  event.preventDefault();
  const text = $("words").value.trim();
  if (!text) return;
  const isCommand = text.startsWith("/");
  const isMention = /^@otabrake\b/i.test(text);
  if (!isCommand && !isMention) {
    $("notice").textContent = "The bot hears /ota … and @otabrake …; nobody else listens here.";
    return;
  }
  $("words").value = "";
  const sent = isCommand ? await gesture("command", { text }) : await gesture("mention", { text: text.replace(/^@otabrake\b/i, "") });
  if (!sent && !$("words").value) $("words").value = text;
  toEnd();
});

$("actor").addEventListener("change", (event) => choose({ actor: event.target.value }));

async function start() {
  state.workspace = await ask("workspace");
  state.actor = state.workspace.people.find((one) => !one.is_bot).id;
  const { hints } = await ask("hints");
  $("hints").replaceChildren(...hints.map((hint) => {
    const made = node("button", { type: "button" }, node("b", { text: "Try " }), hint);
    made.addEventListener("click", () => { $("words").value = hint; $("words").focus(); });
    return made;
  }));
  choose({});
  keepFresh(refresh);
  keepFresh(refreshFleet);
}

start();
