// Conversations kept in this browser, each under a key of its own: tabs that write at the same time keep each other's.

const PREFIX = "amenable-chat-";
const EARLIER = "amenable-chats"; // one list of all conversations, as they were kept before
const MOST = 100; // conversations kept

export const freshId = () => Array.from(crypto.getRandomValues(new Uint8Array(12)), (byte) => byte.toString(16).padStart(2, "0")).join("");

export function read(key, otherwise) {
  try {
    return JSON.parse(localStorage.getItem(key)) ?? otherwise;
  } catch {
    return otherwise;
  }
}

// All conversations, the one changed last first: {id, title, turns, changed, version}.
export function loadChats() {
  const earlier = read(EARLIER, []);
  earlier.forEach((chat, n) => write({ ...chat, changed: Date.now() - n, version: freshId() }));
  if (earlier.length) localStorage.removeItem(EARLIER);
  const keys = Object.keys(localStorage).filter((key) => key.startsWith(PREFIX));
  const chats = keys.map((key) => read(key, null)).filter((chat) => chat?.id && Array.isArray(chat.turns));
  return chats.sort((a, b) => b.changed - a.changed);
}

// Keep a conversation. Where another tab has changed it since this one read it, this tab's becomes one of its own, so
// that the messages of both stay. Throws where the browser keeps nothing.
export function saveChat(chat) {
  const kept = read(PREFIX + chat.id, null);
  if (kept && kept.version !== chat.version) {
    chat.id = freshId();
    chat.title = `${chat.title} (from this tab)`;
  }
  chat.version = freshId();
  chat.changed = Date.now();
  write(chat);
  loadChats().slice(MOST).forEach((old) => removeChat(old.id));
}

function write(chat) {
  localStorage.setItem(PREFIX + chat.id, JSON.stringify(chat));
}

export function removeChat(id) {
  localStorage.removeItem(PREFIX + id);
}

// Call changed(id, chat) when another tab keeps a conversation, with null for one that it has removed.
export function watchChats(changed) {
  addEventListener("storage", (event) => {
    if (event.key?.startsWith(PREFIX)) changed(event.key.slice(PREFIX.length), read(event.key, null));
  });
}
