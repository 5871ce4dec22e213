// Conversations stored in this browser, each under its own key, so that tabs do not overwrite each other's.

const PREFIX = "amenable-chat-";
const EARLIER = "amenable-chats"; // one list of all conversations: the format before
const MOST = 100; // conversations stored

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

// Stores a conversation. Where another tab has changed it since, this tab's becomes a new one, so that both stay.
// Throws where the browser stores nothing.
export function saveChat(chat) {
  const stored = read(PREFIX + chat.id, null);
  if (stored && stored.version !== chat.version) {
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

// Calls changed(id, chat) when another tab stores a conversation, changed(id, null) when it removes one.
export function watchChats(changed) {
  addEventListener("storage", (event) => {
    if (event.key?.startsWith(PREFIX)) changed(event.key.slice(PREFIX.length), read(event.key, null));
  });
}
