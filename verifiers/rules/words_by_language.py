"""Function words of languages that share a script, letters and endings that only one of them has.

They were written down for this purpose; a word that two languages share may stand under both.
"""

from __future__ import annotations

WORDS: dict[str, frozenset[str]] = {
    language: frozenset(words.split())
    for language, words in {
        "en": "the of and to a in is it you that he was for on are with as i his they be at have this from or had by "
        "but not what all were we when your can there an each which she do how their if will other about out then "
        "them these so some her would like him into has more no could my than been who its now did may our me am "
        "very just also any only most over where after because here through before should being does don t s m re "
        "ve ll isn let us please while such those both between under until why too every without within during "
        "against",
        "es": "el la los las de que y en un una es por con para se no su al lo como más pero sus le ya o "
        "este sí porque "
        "esta entre cuando muy sin sobre también me hasta hay donde quien desde todo nos durante todos les ni "
        "contra otros ese eso ellos esto antes qué yo otro del tu te si mi está son fue ser usted",
        "pt": "o a os as de que e do da em um uma para é com não no na por mais dos das se como mas foi ao ele ela seu "
        "sua ou quando muito há nos já está eu também só pelo pela até isso entre era depois sem mesmo aos ter "
        "seus quem nas esse eles você essa nem suas meu às minha são pode ser",
        "fr": "le la les de des et un une en est que qui dans pour pas sur au avec ce il elle ne se plus par je vous "
        "nous sont mais ou du son sa ses cette aux leur même être ont tout comme si y on été très deux votre "
        "notre l d c qu n j s à où ces fait",
        "de": "der die das und in den von zu mit sich des auf für ist im dem nicht ein eine als auch es an werden aus "
        "er hat dass sie nach wird bei einer um am sind noch wie einem über einen zum war haben nur oder aber vor "
        "zur bis mehr durch man sein wurde ich wir ihr mein kann keine sehr",
        "it": "il lo la i gli le di che e un una in è per con non del della si da dei delle al alla come più ma anche "
        "sono nel nella ha questo questa su o se mi ti ci suo sua loro molto quando essere io tu lui lei noi "
        "perché cosa tutto dell l un c degli alle",
        "pl": "i w na z do nie się że to jest o jak po co ale od za dla tak czy już przez by może tylko być "
        "są był była "
        "jego jej ich ten ta te tego tym które który która oraz przy ze ma mnie",
        "vi": "và của là có không được cho các một trong những với người này khi đã để từ như đến cũng tôi về sẽ nhiều "
        "bạn hoặc thì mà rất trên phải làm lại vào nên",
        "sw": "na ya wa kwa ni katika za la cha kama hii hiyo watu sana pia au lakini kuwa yake wao yao hizo huu huo "
        "mimi wewe yeye sisi kila baada kabla zaidi bila ambayo ambao si hapa kwamba wakati vya wangu yangu "
        "hakuna ili",
        "fi": "ja on ei se että hän oli mutta ovat kun niin kuin myös mitä tai joka sen sitä minä sinä me te ole jos "
        "vain nyt tämä ne jotka olla voi hyvin kanssa sekä siitä mukaan jo vielä olen en tässä hänen",
        "nl": "de het een en van in is dat op te zijn met voor niet aan er om ook als dan maar bij uit "
        "door naar worden "
        "wordt heeft hebben deze dit die wat kan nog over je jij wij zij hij ik u uw onze meer geen",
        "ru": "и в не на что я с он как это по но они мы все а к у из за так же от для было его её или быть "
        "если вы при",
        "uk": "і й в не на що я з він як це по але вони ми та до у із за так від для було його її або бути якщо ви при "
        "є цей",
        "bg": "и в не на че аз с той като това по но те ние да се е за от са си при или бъде ако вие ще което които "
        "този тази един",
        "ar": "في من على أن إلى التي الذي هذا هذه ما لا كان كانت مع عن هو هي أو بين كل ثم قد كما لم بعد ذلك "
        "يمكن عند إن "
        "و",
        "fa": "و در به از که این را با است برای آن یک های می تا بر خود هم یا شده او ما شود شما من نیز باید",
        "ur": "اور کے میں کی ہے سے کا کو نے پر ہیں یہ ایک کہ تو بھی جو وہ اس ان لیے کر نہیں تھا ہو آپ ہم",
        "hi": "है हैं का की के को में से और पर यह एक नहीं था थी कि जो तो भी इस कर आप वह लिए ने अपने हम मैं",
        "mr": "आहे आहेत आणि हे ही हा नाही तर होते होता होती या मी तो ते असे पण केले आपण म्हणून करून किंवा व जे आपल्या",
        "ne": "छ छन् हो र को मा लाई ले यो त्यो पनि भने थियो हुन्छ छैन तपाईं म हामी लागि गर्न वा",
    }.items()
}
"""By ISO 639-1 code, in small letters."""

OWN_LETTERS: dict[str, frozenset[str]] = {
    language: frozenset(letters)
    for language, letters in {
        "es": "ñ",
        "pt": "ãõ",
        "fr": "œ",
        "de": "ß",
        "pl": "ąęłńśźż",
        "vi": "ơưđạảấầẩẫậắằẳẵặẹẻẽếềểễệỉịọỏốồổỗộớờởỡợụủứừửữựỳỵỷỹ",
        "ru": "ыэё",
        "uk": "іїєґ",
        "bg": "ъ",
        "ar": "ةىأإ",
        "ur": "ٹڈڑںےہھ",
    }.items()
}
"""Letters that, among the languages of one script here, only this one uses (or nearly)."""

ENDINGS: dict[str, tuple[str, ...]] = {
    "mr": ("च्या", "साठी", "मध्ये", "ांना", "ाला", "चे", "ची"),
    "ne": ("हरू", "हरु", "लाई", "को", "मा", "ले", "छ"),
}
"""Particles that are written as the end of a word."""
